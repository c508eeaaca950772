"""The Schur complement of small blocks: what their products take from the border.

Blocks that meet the same unknowns of the border, as points do that the same cameras see, are laid end to end: the sum
of their products is one product of matrices. Where hardly any do, unknowns of the border that meet the same blocks, as
the parameters of one camera do, make tiles of the complement, and the products that meet at a tile are summed so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple, Protocol

import numpy
import torch
from torch import Tensor

from .block_groups import Ends, Grouping, times
from .matrix import Array

#: The products that are one product of matrices.
JOINED = 16

#: And the number of those that are done at once: they stay in the processor's cache.
AT_ONCE = 256


#: The numbers of products of blocks that are added entry by entry at a time.
PRODUCTS_AT_ONCE = 1 << 16

#: Tiles of fewer unknowns are written entry by entry, which takes no longer.
LEAST_TILE = 6


#: The blocks that meet the same unknowns on average, from which on they are laid end to end.
REPEATED = 2


class Products(Protocol):
    """Where products of blocks go."""

    def add(self, whole: Tensor, left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        """Add the products of the blocks of some batches, ``left[k]ᵀ right[k]``, to a matrix.

        Of a symmetric one only what stands on and below the diagonal need be right.
        """


class Groups(NamedTuple):
    """Where each entry of the sums of a batch's groups goes."""

    batch: int
    grouping: Grouping
    places: Tensor  # (groups, rows, columns)

    def add(self, whole: Tensor, left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        """Add the sums of the batch."""
        ours, flat = (left[self.batch], right[self.batch]), whole.view(-1)
        if not self.grouping.whole:
            flat.scatter_add_(0, self.places.view(-1), self.grouping.sums(*ours).view(-1))
            return
        laid = [self.grouping.pieces[0].laid(each) for each in ours]
        step = max(1, PRODUCTS_AT_ONCE // max(self.places[0].numel(), 1))
        for begin in range(0, len(self.places), step):
            some = slice(begin, begin + step)
            product = times(laid[0][some].mT, laid[1][some])
            flat.scatter_add_(0, self.places[some].reshape(-1), product.view(-1))


class Tiles(NamedTuple):
    """Which tiles of blocks are multiplied, and where the sums of some go; a tile past the last one is zero."""

    size: int
    batches: list[int]
    left: Tensor  # (sums * JOINED,)
    right: Tensor
    places: Tensor  # (sums, size, size)

    def add(self, whole: Tensor, left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        """Add the products of the batches, sums of some at a time."""
        ours = [[tensors[number] for number in self.batches] for tensors in (left, right)]
        ends = [_laid_out(ours[0], self.size)]
        same = all(a is b for a, b in zip(*ours, strict=True))
        ends.append(ends[0] if same else _laid_out(ours[1], self.size))
        flat = whole.view(-1)
        for at in range(0, len(self.places), AT_ONCE):
            one, other = (
                end.index_select(0, tiles[at * JOINED : (at + AT_ONCE) * JOINED]).view(
                    -1, JOINED * end.shape[1] // self.size, self.size
                )
                for end, tiles in zip(ends, (self.left, self.right), strict=True)
            )
            flat.scatter_add_(0, self.places[at : at + AT_ONCE].view(-1), (one.mT @ other).view(-1))


def _laid_out(batches: Sequence[Tensor], size: int) -> Tensor:
    """Return the tiles of matrices, of all their rows and some columns each, in rows, and a row of zeros."""
    side, counts = batches[0].shape[1], [each.shape[0] * (each.shape[2] // size) for each in batches]
    found = batches[0].new_empty(sum(counts) + 1, side * size)
    *parts, last = found.split([*counts, 1])
    last.zero_()
    for part, each in zip(parts, batches, strict=True):
        tiled = each.unflatten(2, (-1, size)).transpose(1, 2)
        part.view(tiled.shape).copy_(tiled)
    return found


def pairs_of(
    block: Array, place: Array, blocks: int, places: int
) -> tuple[tuple[Array, Array], Array, Array]:
    """Return the pairs of block and place that occur, each entry's pair as a number in its block, and counts."""
    key, back = numpy.unique(block.astype(numpy.int64) * places + place, return_inverse=True)
    of = key // places
    counts = numpy.bincount(of, minlength=blocks)
    slot = numpy.arange(len(key)) - (numpy.cumsum(counts) - counts)[of]
    return (of, key % places), slot[back], counts


def alike(pairs: Sequence[tuple[Array, Array]], places: int) -> tuple[Array, int]:
    """Return places in an order in which those that the same blocks meet follow one another, and a size of tiles.

    ``pairs`` are those of blocks and places that meet, each once. The size divides the number of each such group.
    """
    make, met = numpy.random.default_rng(0), numpy.zeros(places, numpy.int64)
    for block, place in pairs:
        weight = make.integers(1, 2**62, int(block.max(initial=0)) + 1, numpy.int64)
        numpy.add.at(met, place, weight[block])  # modulo 2⁶⁴: for other blocks hardly ever the same
    _, counts = numpy.unique(met, return_counts=True)
    return numpy.argsort(met, kind="stable"), gcd(*counts.tolist())


def products(
    batches: dict[int, tuple[Ends, Grouping]], size: int, border: int, symmetric: bool
) -> list[Products]:
    """Return where the products of batches go: by groups of blocks, or by tiles of a size if few blocks are alike."""
    ends = {number: end for number, (end, _) in batches.items()}
    tiled = all(_is_tiled(each, size) for end in ends.values() for each in (end.rows, end.columns))
    blocks, groups = (
        sum(len(each.rows) for each in some)
        for some in (ends.values(), [grouping for _, grouping in batches.values()])
    )
    if size < LEAST_TILE or not tiled or blocks >= REPEATED * groups:
        return [
            Groups(number, each, each.rows[:, :, None] * border + each.columns[:, None, :])
            for number, (_, each) in batches.items()
        ]
    return [
        _tiles({number: end for number, end in ends.items() if end.side == side}, size, border, symmetric)
        for side in sorted({end.side for end in ends.values()})
    ]


def _is_tiled(unknowns: Array, size: int) -> bool:
    each = unknowns.reshape(len(unknowns), -1, size)
    return bool((each == each[:, :, :1] + numpy.arange(size)).all() and (each[:, :, 0] % size == 0).all())


def _tiles(ends: dict[int, Ends], size: int, border: int, symmetric: bool) -> Tiles:
    across = border // size
    begins = [0, 0]
    pairs: list[tuple[Array, Array, Array]] = []
    for end in ends.values():
        row, column = (each[:, ::size] // size for each in (end.rows, end.columns))
        left, right = (
            begin + numpy.arange(each.size).reshape(each.shape)
            for begin, each in zip(begins, (row, column), strict=True)
        )
        begins = [begins[0] + row.size, begins[1] + column.size]
        kept = row[:, :, None] >= column[:, None, :] if symmetric else numpy.True_
        shape = (*row.shape, column.shape[1])
        kept = numpy.broadcast_to(kept, shape)
        whole = (row[:, :, None] * across + column[:, None, :], left[:, :, None], right[:, None, :])
        goal, left, right = (numpy.broadcast_to(each, shape)[kept] for each in whole)
        pairs.append((goal, left, right))
    goal, left, right = (numpy.concatenate(each) for each in zip(*pairs, strict=True))
    order = numpy.argsort(goal, kind="stable")
    goals, first, counts = numpy.unique(goal[order], return_index=True, return_counts=True)
    sums = -(-counts // JOINED)
    nth = numpy.arange(len(order)) - numpy.repeat(first, counts)
    at = numpy.repeat(numpy.cumsum(sums) - sums, counts) * JOINED + nth
    joined = []
    for tiles, last in ((left, begins[0]), (right, begins[1])):
        table = numpy.full(int(sums.sum()) * JOINED, last)
        table[at] = tiles[order]
        joined.append(torch.from_numpy(table))
    goals = numpy.repeat(goals, sums)
    rows = (goals // across * size)[:, None, None] + numpy.arange(size)[:, None]
    columns = (goals % across * size)[:, None, None] + numpy.arange(size)
    places = torch.from_numpy(rows * border + columns)
    return Tiles(size, list(ends), joined[0], joined[1], places)
