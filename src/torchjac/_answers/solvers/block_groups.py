"""Blocks that meet the same unknowns of the border, laid end to end: the sum of their products is one product."""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from .matrix import Array


class Ends(NamedTuple):
    """The unknowns of the border that each block of a batch meets, in rising order, and the size of a block."""

    rows: Array  # (blocks, rows)
    columns: Array  # (blocks, columns)
    side: int


class Piece(NamedTuple):
    """Blocks of a batch from ``begin`` on, laid end to end ``length`` at a time, and the group of each sum."""

    begin: int
    length: int
    groups: Tensor

    def laid(self, blocks: Tensor) -> Tensor:
        """Return the blocks end to end: (sums, length × side, ...)."""
        count = len(self.groups)
        part = blocks.narrow(0, self.begin, count * self.length)
        return part.reshape(count, self.length * blocks.shape[1], *blocks.shape[2:])


class Grouping(NamedTuple):
    """The blocks of a batch in groups that meet the same unknowns; ``whole`` tells that each piece is a group."""

    rows: Tensor  # (groups, rows)
    columns: Tensor  # (groups, columns)
    pieces: list[Piece]
    whole: bool

    def sums(self, left: Tensor, right: Tensor) -> Tensor:
        """Return Σ leftᵀ right over the blocks of each group."""
        if self.whole:
            (piece,) = self.pieces
            return times(piece.laid(left).mT, piece.laid(right))
        found = left.new_zeros(len(self.rows), left.shape[2], right.shape[2])
        for piece in self.pieces:
            found.index_add_(0, piece.groups, piece.laid(left).mT @ piece.laid(right))
        return found

    def spread(self, left: Tensor, met: Tensor) -> Tensor:
        """Return each block times what its group meets."""
        parts = [
            times(piece.laid(left), met if self.whole else met[piece.groups]).view(
                -1, left.shape[1], met.shape[2]
            )
            for piece in self.pieces
        ]
        return parts[0] if self.whole else torch.cat(parts)


def grouping(ends: Ends) -> tuple[Grouping, Array]:
    """Return the groups of the blocks of a batch, and an order of the blocks in which each piece stands together.

    A group is one piece where all are of one size, else one for each power of two in its size: few products, and each
    block in one of them.
    """
    both = numpy.concatenate([ends.rows, ends.columns], 1)
    _, first, group, counts = numpy.unique(
        both, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    rows, columns = torch.from_numpy(ends.rows[first]), torch.from_numpy(ends.columns[first])
    order = numpy.argsort(group, kind="stable")
    if (counts == counts[0]).all():
        piece = Piece(0, int(counts[0]), torch.arange(len(counts), device="cpu"))
        return Grouping(rows, columns, [piece], True), order
    nth = numpy.empty(len(group), numpy.int64)
    nth[order] = numpy.arange(len(group)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
    # The highest digit in which the two differ: of those in the size, the one whose piece the block falls in.
    digit = numpy.frexp((nth ^ counts[group]).astype(float))[1] - 1
    pieces, begin = [], 0
    for power in range(int(digit.max()), -1, -1):
        groups = numpy.flatnonzero(counts >> power & 1)
        if len(groups):
            pieces.append(Piece(begin, 1 << power, torch.from_numpy(groups)))
            begin += len(groups) << power
    return Grouping(rows, columns, pieces, False), numpy.lexsort((nth, group, -digit))


def times(matrices: Tensor, right: Tensor) -> Tensor:
    """Return a product of batches; one matrix times a single column is that of a vector, which takes half the time."""
    if len(matrices) == 1 and right.shape[2] == 1:
        return torch.mv(matrices[0], right[0, :, 0]).view(1, -1, 1)
    return matrices @ right
