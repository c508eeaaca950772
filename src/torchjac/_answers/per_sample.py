"""The Jacobian of a whole batch, found beneath vmap, as that of one sample inside it.

A batch dim is a label of the blocks: it goes from the maps into the values, whose dim is then that of the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._blocks.block import Block, TensorOptions, whole
from .._blocks.maps import Affine, Gather, Label, Map, bare_label
from .._blocks.write import dense
from .._capture.beneath_vmap import Beneath
from .._capture.vmap_levels import lifted
from .forms import SumOfBlocks
from .operator import Jacobian


def per_sample(beneath: Beneath, found: Jacobian, output: int, number: int) -> Jacobian:
    """Return the Jacobian of one sample, inside the levels; other blocks than `_of_sample` takes are written out."""
    kept, in_levels = beneath.kept(output, number), beneath.in_levels[number]
    out_shape, in_shape = found.out_shape, found.in_shape
    # The levels of those dims that tell samples apart: the first of either end
    sides = (dict(zip(kept, out_shape, strict=False)), dict(zip(in_levels, in_shape, strict=False)))
    blocks, others = [], []
    for block in found.blocks:
        sample = _of_sample(block, *sides)
        if sample is None:
            others.append(block)
        else:
            blocks.append(sample)
    own_out, own_in = out_shape[len(kept) :], in_shape[len(in_levels) :]
    if others:
        written = dense_by_samples(others, out_shape, in_shape, found, len(in_levels))
        blocks.append(whole(own_out, own_in)._replace(value=beneath.inside(written, output, number)))
    return found._with(SumOfBlocks(own_out, own_in, found.dtype, found.device, tuple(blocks)))


def dense_by_samples(
    blocks: list[Block], out_shape: Sequence[int], in_shape: Sequence[int], like: TensorOptions, lead: int
) -> Tensor:
    """Return blocks written out, the first ``lead`` dims of the input, its samples, before those of the output."""
    moved = [block._replace(out=block.wrt[:lead] + block.out, wrt=block.wrt[lead:]) for block in blocks]
    return dense(moved, (*in_shape[:lead], *out_shape), in_shape[lead:], like)


def _of_sample(block: Block, kept: Mapping[int, int], in_levels: Mapping[int, int]) -> Block | None:
    """Return a block whose batch dims are labels, one for each level, in no other map but tables; else None.

    The levels of the first dims of the output and of the input are given, with their sizes.
    """
    value, on, out, wrt = block
    rest_out, rest_wrt = out[len(kept) :], wrt[len(in_levels) :]
    labels: dict[Label, int] = {}
    for (level, size), map_ in zip(
        (*kept.items(), *in_levels.items()), (*out[: len(kept)], *wrt[: len(in_levels)]), strict=True
    ):
        label = _sample_label(map_, size)
        if label is None or label in labels:
            return None
        labels[label] = level
    if any(
        type(map_) is Affine and any(label in labels for label, _ in map_.terms)
        for map_ in (*rest_out, *rest_wrt)
    ):
        return None

    def read(tensor: Tensor, over: Sequence[Label]) -> tuple[Tensor, tuple[Label, ...]]:
        first = sorted((label for label in over if label in labels), key=labels.__getitem__)
        rest = tuple([label for label in over if label not in labels])
        order = [over.index(label) for label in (*first, *rest)]
        return lifted(tensor.permute(order), tuple([labels[label] for label in first])), rest

    def seen(map_: Map) -> Map:
        if type(map_) is not Gather:
            return map_
        index, over = map_
        for dim in reversed([dim for dim, label in enumerate(over) if label in labels]):
            # One table for all samples has values that stay known.
            if index.shape[dim] and torch.equal(index, index.narrow(dim, 0, 1).expand_as(index)):
                index, over = index.select(dim, 0), over[:dim] + over[dim + 1 :]
        return Gather(*read(index, over))

    if isinstance(value, Tensor):
        value, on = read(value, on)
    return Block(value, on, tuple(map(seen, rest_out)), tuple(map(seen, rest_wrt)))


def _sample_label(map_: Map, size: int) -> Label | None:
    """Return the label that a batch dim is equal to, be it by a table; None where it is anything more or less."""
    if type(map_) is Gather and len(map_.labels) == 1:
        is_range = torch.equal(map_.index, torch.arange(size, device=map_.index.device))
        return map_.labels[0] if is_range else None
    label = bare_label(map_)
    return label if label is not None and label.size == size else None
