"""Blocks that keep the samples of a batch apart, as one block: the entries of a sample, listed once for all of them.

A function of many small steps leaves many small blocks for each sample. Each costs a call or more whatever is done with
it; as one list of positions in a sample's matrix, and a value for each sample and position, they cost one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .block import Block, TensorOptions, interned, values_over
from .cost import samples_pay
from .dense_views import locate, unravelled
from .domain import domain_of
from .maps import Gather, Label, Map, bare, bare_label, labels_of


def in_one_by_sample(
    blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> list[Block]:
    """Return blocks as one that names the same entries, if all are of one sample each and that holds hardly more."""
    size, entries = prod(out_shape[:1]), prod((*out_shape[1:], *wrt_shape[1:]))
    values = sum([block.value.numel() for block in blocks if isinstance(block.value, Tensor)])
    if len(blocks) < 2 or not samples_pay(size, entries // 3 + 1, entries, values):
        return list(blocks)
    places = _places(blocks, out_shape, wrt_shape, like)
    if places is None or not samples_pay(size, places[0].numel(), entries, values):
        return list(blocks)
    return [_listed(blocks, *places, out_shape, wrt_shape, like)]


def block_by_sample(
    blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Block | None:
    """Return blocks as one that names the same entries, if all are of one sample each; else None."""
    places = _places(blocks, out_shape, wrt_shape, like)
    return None if places is None else _listed(blocks, *places, out_shape, wrt_shape, like)


def _places(
    blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> tuple[Tensor, Tensor] | None:
    """Return the sorted positions of entries in a sample's matrix, and at which of them each value of blocks stands."""
    if like.device.type == "meta" or any(map(domain_of, blocks)):
        return None
    if any(sample_label(block, out_shape, wrt_shape) is None for block in blocks):
        return None
    shape = (*out_shape[1:], *wrt_shape[1:])
    at = torch.cat([positions_in_sample(block, shape, like.device) for block in blocks])
    where, back = torch.unique(at, return_inverse=True)
    return where, back


def _listed(
    blocks: Sequence[Block],
    where: Tensor,
    back: Tensor,
    out_shape: Sequence[int],
    wrt_shape: Sequence[int],
    like: TensorOptions,
) -> Block:
    """Return the block by samples with entries at sorted positions."""
    size, shape = out_shape[0], (*out_shape[1:], *wrt_shape[1:])
    values = torch.cat([_by_samples(block, size, like) for block in blocks], 1)
    if where.numel() == back.numel():  # each once: the values in another order, without a sum
        values = values.index_select(1, back.argsort())
    else:
        values = values.new_zeros(size, where.numel()).index_add(1, back, values)
    if where.numel() == prod(shape):
        found = _whole_samples(size, tuple(out_shape[1:]), tuple(wrt_shape[1:]))
        return found._replace(value=values.view(size, *shape))
    batch, each = Label(size), Label(where.numel())
    maps: list[Map] = [Gather(table, (each,)) for table in unravelled(where, shape)]
    rank = len(out_shape) - 1
    return Block(values, (batch, each), (bare(batch), *maps[:rank]), (bare(batch), *maps[rank:]))


def sample_label(block: Block, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> Label | None:
    """Return the label of a block's samples: of its maps the first of both ends, and no others, are of it."""
    if not (out_shape and wrt_shape and out_shape[0] == wrt_shape[0]):
        return None
    label = bare_label(block.out[0])
    if label is None or label.size != out_shape[0] or bare_label(block.wrt[0]) is not label:
        return None
    return None if label in labels_of(block.out[1:] + block.wrt[1:]) else label


def positions_in_sample(block: Block, shape: Sequence[int], device: torch.device) -> Tensor:
    """Return where the entries of a block stand in the flattened matrix of a sample, which has a shape."""
    maps = block.out[1:] + block.wrt[1:]
    over = tuple(labels_of(maps))
    return locate(maps, over, shape, device).expand([label.size for label in over]).reshape(-1)


def holds_samples(block: Block, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Return whether a block holds a value for each sample and each entry that it names there, and names none twice."""
    label = sample_label(block, out_shape, wrt_shape)
    if (
        label is None
        or not isinstance(block.value, Tensor)
        or len(block.on) < len(sample_first(block, label))
    ):
        return False
    at = positions_in_sample(block, (*out_shape[1:], *wrt_shape[1:]), block.value.device)
    return len(at.unique()) == len(at)


def sample_first(block: Block, label: Label) -> tuple[Label, ...]:
    """Return the labels of a block, that of the samples before the others."""
    return (label, *labels_of(block.out[1:] + block.wrt[1:]))


def _by_samples(block: Block, size: int, like: TensorOptions) -> Tensor:
    """Return the values of a block in a row for each sample."""
    label, *_ = labels_of(block.out)
    over = sample_first(block, label)
    return values_over(block, over, like.dtype, like.device).reshape(
        size, prod(each.size for each in over[1:])
    )


@interned
def _whole_samples(size: int, out_shape: tuple[int, ...], wrt_shape: tuple[int, ...]) -> Block:
    """Return a block with a number for each entry of each sample's matrix, which is to be put in."""
    over = tuple([Label(each) for each in (size, *out_shape, *wrt_shape)])
    first, *rest = map(bare, over)
    return Block(1.0, over, (first, *rest[: len(out_shape)]), (first, *rest[len(out_shape) :]))
