"""Adding blocks: those with the same maps add their values, the others stay side by side in a list."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .batched import in_one
from .block import Block, TensorOptions, whole
from .by_sample import block_by_sample
from .coalesce_diagonals import join_lines
from .coordinates import coordinate_block
from .cost import coordinates_pay, densifies, has_few_entries, is_long, is_many, is_sparse, may_overlap
from .domain import domain_of, hull
from .maps import Affine, Label, align, bare_label
from .spelling import spell
from .write import dense


def merge(
    blocks: list[Block],
    out_shape: Sequence[int],
    wrt_shape: Sequence[int],
    like: TensorOptions,
    sparse: bool = False,
) -> list[Block]:
    """Return the same Jacobian in fewer blocks; ``like`` gives dtype and device, the shapes those of its two ends.

    Blocks that hold as many numbers as the dense Jacobian become dense; where the answer is to be ``sparse``, only
    after entries that several of them name are counted once.
    """
    if len(blocks) < 2:
        return blocks
    merged = _merged(blocks, out_shape, wrt_shape, like, sparse)
    if len(merged) == 1 and any(domain_of(block) for block in blocks):
        return [hull(blocks, merged[0])]
    return merged


def _merged(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions, sparse: bool
) -> list[Block]:
    same: dict[tuple[int, int], Block] = {}  # the very same maps, as sums of products of diagonals have
    for block in blocks:
        place = (id(block.out), id(block.wrt))
        other = same.get(place)
        same[place] = (
            block
            if other is None
            else Block(*merge_values(other, block.value, block.on), block.out, block.wrt)
        )
    blocks = list(same.values())
    if is_many(blocks):
        blocks = join_lines(blocks, like)
    elif len(blocks) > 1:
        merged: dict[object, Block] = {}
        for block in blocks:
            key = spell(block).law
            other = merged.get(key)
            merged[key] = block if other is None else _add(other, block)
        blocks = list(merged.values())
    if len(blocks) < 2:
        return blocks
    if densifies(blocks, out_shape, wrt_shape):
        return [_all_in_one(blocks, out_shape, wrt_shape, like, sparse)]
    one = in_one(blocks, out_shape, wrt_shape, like)
    if one is not None:
        return [one]
    return _shortened(blocks, out_shape, wrt_shape, like, sparse) if is_long(blocks) else blocks


def _shortened(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions, sparse: bool
) -> list[Block]:
    """Return a long list in a form that is cheaper to carry: its small blocks as coordinates, or all as one tensor."""
    small: list[Block] = []
    large: list[Block] = []
    for block in blocks:
        (small if has_few_entries(block, is_coordinates(block)) else large).append(block)
    # On the meta device no value tells which coordinates are the same.
    if like.device.type == "meta" or not coordinates_pay(small, large, out_shape, wrt_shape):
        return [_all_in_one(blocks, out_shape, wrt_shape, like, sparse)]
    return [*large, _listed(small, out_shape, wrt_shape, like)] if small else large


def _all_in_one(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions, sparse: bool
) -> Block:
    """Return all blocks as a dense one; for a sparse answer as coordinates, if these are few once each is unique."""
    if sparse and may_overlap(blocks, out_shape, wrt_shape) and like.device.type != "meta":
        listed = _listed(blocks, out_shape, wrt_shape, like)
        if is_sparse(listed, out_shape, wrt_shape):
            return listed
    return dense_block(blocks, out_shape, wrt_shape, like)


def _listed(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Block:
    """Return all blocks as a list of entries, of those of a sample where all samples have the same."""
    by_sample = block_by_sample(blocks, out_shape, wrt_shape, like)
    return by_sample or coordinate_block(blocks, out_shape, wrt_shape, like)


def dense_block(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Block:
    """Return all blocks written into one that holds every entry."""
    return block_of_rows(dense(blocks, out_shape, wrt_shape, like), out_shape, wrt_shape)


def block_of_rows(rows: Tensor, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> Block:
    """Return the dense block of rows, all output dims joined in front or not."""
    value = rows.reshape((*out_shape, *wrt_shape))
    return whole(tuple(out_shape), tuple(wrt_shape))._replace(value=value)


def rows_of(block: Block, rank: int, count: int) -> Tensor:
    """Return the value of a dense block with all output dims joined in front."""
    over = tuple(bare_label(map_) for map_ in block.out + block.wrt)
    value = align(block.value, block.on, over)  # type: ignore[arg-type]  # no number, and each map is a label
    return value.reshape(count, *value.shape[rank:])


def _add(first: Block, second: Block) -> Block:
    """Return the sum of two blocks of one law."""
    rename = dict(zip(spell(second).over, spell(first).over, strict=True)) if second.on else {}
    value, on = merge_values(first, second.value, tuple([rename[label] for label in second.on]))
    return Block(value, on, first.out, first.wrt)


def merge_values(
    first: Block, b: Tensor | float, on: tuple[Label, ...]
) -> tuple[Tensor | float, tuple[Label, ...]]:
    """Return the value of a block plus another over the labels ``on``."""
    over = first.on or on
    if on and on != over:
        over = tuple(dict.fromkeys(over + on))
    if not on or not first.on or first.on == on:
        return first.value + b, over
    return align(first.value, first.on, over) + align(b, on, over), over  # type: ignore[arg-type]  # with labels


def is_coordinates(block: Block) -> bool:
    """Return whether a block is a list of coordinates and values already, of all entries or of those of each sample."""
    over: set[Label] = set()
    samples = [bare_label(map_) for map_ in (*block.out[:1], *block.wrt[:1])]
    lead = len(samples) == 2 and samples[0] is not None and samples[0] is samples[1]
    for map_ in block.out[lead:] + block.wrt[lead:]:
        if type(map_) is Affine:
            return False
        over.update(map_.labels)
    return len(over) == 1
