"""Blocks that share dims, as those of a batch do, and name every entry between the others: one block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import TypeAlias

import numpy
from torch import Tensor

from .block import KEPT, Block, TensorOptions, interned, is_remembered, stored
from .maps import Affine, Label, Map, bare, bare_label, labels_of
from .write import dense

#: Entries between the dims that are not shared, which are looked at one by one.
MOST_ENTRIES = 4096

#: Dims of the output, each with the dim of the input that it is.
Pairs: TypeAlias = tuple[tuple[int, int], ...]


def in_one(
    blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Block | None:
    """Return blocks as one that is full between the dims they do not share; None where that holds no fewer.

    No structure is lost: together they name each of its entries.
    """
    shapes = tuple(out_shape), tuple(wrt_shape)
    find = _remembered if all(map(is_remembered, blocks)) else _pairs
    pairs = find(tuple([(block.out, block.wrt) for block in blocks]), *shapes)
    if not pairs:
        return None
    # A dim along which no value varies is none of the value. The others are its last: along them memory is read.
    tied = _varying(blocks, pairs)
    whole = _full(*shapes, pairs, tied)
    sizes = [label.size for label in whole.on]
    if sum(map(stored, blocks)) <= prod(sizes):  # nothing is spared that would pay for writing it
        return None
    return whole._replace(value=_values(blocks, pairs, tied, whole, like))


def shared_dims(blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int]) -> Pairs:
    """Return the dims of the output that all blocks share, each with the dim of the input that it is."""
    shapes = tuple(out_shape), tuple(wrt_shape)
    return tuple(sorted(set.intersection(*[_shared(block.out, block.wrt, *shapes) for block in blocks])))


def full_between(
    blocks: Sequence[Block],
    pairs: Pairs,
    out_shape: Sequence[int],
    wrt_shape: Sequence[int],
    like: TensorOptions,
) -> Block:
    """Return blocks as one with a number for each entry between the dims that they share; zeros are among these."""
    tied = _varying(blocks, pairs)
    whole = _full(tuple(out_shape), tuple(wrt_shape), pairs, tied)
    return whole._replace(value=_values(blocks, pairs, tied, whole, like))


def held_between(
    blocks: Sequence[Block], pairs: Pairs, out_shape: Sequence[int], wrt_shape: Sequence[int]
) -> int:
    """Return how many numbers such a block holds."""
    whole = _full(tuple(out_shape), tuple(wrt_shape), pairs, _varying(blocks, pairs))
    return prod([label.size for label in whole.on])


def _varying(blocks: Sequence[Block], pairs: Pairs) -> tuple[int, ...]:
    """Return the shared dims of the output along which the value of some block varies."""
    return tuple([d for d, _ in pairs if any(bare_label(block.out[d]) in block.on for block in blocks)])


def _values(
    blocks: Sequence[Block], pairs: Pairs, tied: Sequence[int], whole: Block, like: TensorOptions
) -> Tensor:
    """Return the numbers of blocks over the labels of the one that holds them all."""
    rows, columns = _between(pairs, whole.out, whole.wrt)
    moved = [
        Block(
            block.value,
            block.on,
            tuple([block.out[d] for d in rows] + [block.wrt[e] for e in columns]),
            tuple([block.out[d] for d in tied]),
        )
        for block in blocks
    ]
    sizes, count = [label.size for label in whole.on], len(rows) + len(columns)
    return dense(moved, sizes[:count], sizes[count:], like)


@interned
def _full(
    out_shape: tuple[int, ...], wrt_shape: tuple[int, ...], pairs: Pairs, tied: tuple[int, ...]
) -> Block:
    """Return the block of a number for each entry between the dims that are not shared, which are to be put in."""
    over = [Label(size) for size in out_shape]
    shared = {e: over[d] for d, e in pairs}
    others = [shared.get(e, Label(size)) for e, size in enumerate(wrt_shape)]
    rows, columns = _between(pairs, out_shape, wrt_shape)
    on = [*(over[d] for d in rows), *(others[e] for e in columns), *(over[d] for d in tied)]
    return Block(1.0, tuple(on), tuple(map(bare, over)), tuple(map(bare, others)))


def _between(
    pairs: Iterable[tuple[int, int]], out: Sequence[object], wrt: Sequence[object]
) -> list[list[int]]:
    """Return the dims of the output, and of the input, that are not shared."""
    return [
        [k for k in range(len(dims)) if k not in {pair[end] for pair in pairs}]
        for end, dims in enumerate((out, wrt))
    ]


def _pairs(
    maps: tuple[tuple[tuple[Map, ...], tuple[Map, ...]], ...],
    out_shape: tuple[int, ...],
    wrt_shape: tuple[int, ...],
) -> Pairs:
    """Return the dims that all blocks share; none where some entry between the others is named by no block."""
    if any(type(map_) is not Affine for ends in maps for end in ends for map_ in end):
        return ()
    shared = set.intersection(*[_shared(*ends, out_shape, wrt_shape) for ends in maps])
    rows, columns = _between(shared, out_shape, wrt_shape)
    shape = [*(out_shape[d] for d in rows), *(wrt_shape[e] for e in columns)]
    if not shared or prod(shape) > MOST_ENTRIES:
        return ()
    named = numpy.zeros(shape, bool)
    for out, wrt in maps:
        named[_positions([*(out[d] for d in rows), *(wrt[e] for e in columns)])] = True
    return tuple(sorted(shared)) if named.all() else ()


_remembered = lru_cache(maxsize=KEPT)(_pairs)


def _shared(
    out: tuple[Map, ...], wrt: tuple[Map, ...], out_shape: tuple[int, ...], wrt_shape: tuple[int, ...]
) -> set[tuple[int, int]]:
    """Return the dims of the output and of the input along which one label runs over the whole of both."""
    found = set()
    for d, map_ in enumerate(out):
        label = bare_label(map_)
        if label is None or label.size != out_shape[d] or label.size < 2:
            continue
        at = [e for e, other in enumerate(wrt) if label in other.labels]
        alone = not any(label in other.labels for k, other in enumerate(out) if k != d)
        if len(at) == 1 and alone and bare_label(wrt[at[0]]) == label and wrt_shape[at[0]] == label.size:
            found.add((d, at[0]))
    return found


def _positions(maps: Sequence[Map]) -> tuple[numpy.ndarray, ...]:
    """Return the positions along each dim, over all labels."""
    over = list(labels_of(tuple(maps)))
    grid = dict(zip(over, numpy.indices([label.size for label in over], sparse=True), strict=True))
    zero = numpy.zeros((1,) * len(over), int)
    found = []
    for map_ in maps:
        assert type(map_) is Affine
        found.append(sum([step * grid[label] for label, step in map_.terms], zero + map_.offset))
    return tuple(found)
