"""A square sparse matrix as the solvers are given it, and what its pattern alone tells."""

from __future__ import annotations

from typing import Any, Protocol

import numpy
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from ..._blocks.lazy import Notes, lazy
from .matching import matched

Array = numpy.ndarray


class Factors(Protocol):
    """The factors of a matrix."""

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right, for a right side of shape (n, k)."""

    def slogdet(self) -> tuple[float, float]:
        """Return the sign of det A and log |det A|."""


class UnfitError(Exception):
    """A way to solve turned out not to fit the values of a matrix; another one is to be taken."""


class DependentError(Exception):
    """A column of a matrix depends linearly on those before it."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


class MatrixPattern:
    """Where the nonzeros of a square matrix stand, row by row; what is worked out from it is kept in ``notes``.

    The notes are those of the pattern that Jacobians of one make share: a loop pays for them once. ``symmetric`` tells
    that the values are so too, which is known from the blocks; ``source`` where the number of each nonzero is among
    the values that are given, if they are in another order, which follows from a law.
    """

    def __init__(
        self,
        begin: Array,
        index: Array,
        notes: Notes,
        symmetric: bool = False,
        source: Array | None = None,
        law: tuple[Any, ...] = (),
    ) -> None:
        self.begin, self.index, self.notes, self.symmetric = begin, index, notes, symmetric
        self.source, self.law = source, law
        self.size = len(begin) - 1

    def in_order(self, values: Array) -> Array:
        """Return the value of each nonzero, of those that are given."""
        return values if self.source is None else values[self.source]

    @lazy
    def row(self) -> Array:
        """The row of each nonzero."""
        return numpy.repeat(numpy.arange(self.size, dtype=self.index.dtype), numpy.diff(self.begin))

    @property
    def band(self) -> tuple[int, int]:
        """The numbers of diagonals below and above the main one that hold nonzeros."""

        def find() -> tuple[int, int]:
            if not len(self.index):
                return 0, 0
            low, high = self.begin[:-1], self.begin[1:] - 1
            row = numpy.arange(self.size, dtype=self.index.dtype)
            filled = high >= low
            if not filled.all():
                low, high, row = low[filled], high[filled], row[filled]
            return max(0, int((row - self.index[low]).max())), max(0, int((self.index[high] - row).max()))

        return self.notes.find("band", find)

    @property
    def symmetry(self) -> float:
        """The part of the nonzeros beside the diagonal that have a mirror image, one where there are none."""

        def find() -> float:
            from scipy.sparse import csr_array

            ones = numpy.ones(len(self.index), numpy.int8)
            graph = csr_array((ones, self.index, self.begin), shape=(self.size, self.size))
            beside = self.index != self.row
            mirrored = graph.multiply(graph.T.tocsr()).nnz - int((~beside).sum())
            return float(mirrored / max(int(beside.sum()), 1)) if beside.any() else 1.0

        return self.notes.find("symmetry", find)

    @property
    def diagonal(self) -> Array | None:
        """Where the nonzeros of the diagonal stand; None where some are missing."""

        def find() -> Array | None:
            at = numpy.flatnonzero(self.row == self.index)
            return at if len(at) == self.size else None

        return self.notes.find("diagonal", find)

    @property
    def is_singular(self) -> bool:
        """True where the pattern alone makes the matrix singular, as there is no pivot for some row."""

        def find() -> bool:
            return self.diagonal is None and bool((matched(self.begin, self.index) < 0).any())

        return self.notes.find("singular", find)


def singular(pattern: MatrixPattern, values: Array, otherwise: str) -> LinAlgError:
    """Return the error that a matrix is singular, with the first row or column that tells why, else by the solver."""
    full = values != 0
    rows = numpy.bincount(pattern.row[full], minlength=pattern.size)
    columns = numpy.bincount(pattern.index[full], minlength=pattern.size)
    for name, counts in (("row", rows), ("column", columns)):
        if not counts.all():
            return LinAlgError(
                f"the Jacobian is singular ({name} {int(numpy.flatnonzero(counts == 0)[0])} is zero)"
            )
    lonely = numpy.flatnonzero(matched(numpy.append(0, numpy.cumsum(rows)), pattern.index[full]) < 0)
    if len(lonely):
        return LinAlgError(
            f"the Jacobian is singular (row {int(lonely[0])} has nonzeros only where other rows have their pivots)"
        )
    return LinAlgError(f"the Jacobian is singular ({otherwise})")
