"""Which way a sparse system is solved: the first that its pattern and values allow, the cheapest first."""

from __future__ import annotations

from typing import Any

import numpy

from ..._blocks.lazy import Notes
from .arrow import Arrow
from .arrow_plan import plan
from .banded import Banded, is_narrow, is_tridiagonal
from .matrix import Array, DependentError, Factors, MatrixPattern, UnfitError, singular
from .permuted import Permutation, permutation
from .superlu import SuperLU, diagonal_ordering
from .tridiagonal import Tridiagonal
from .written_out import WrittenOut

#: Where pivots on the diagonal lost accuracy they are tried again, for other values may allow them: after this many
#: systems of the pattern, then after twice as many each time, up to a limit.
SHORTEST_WAIT, LONGEST_WAIT = 4, 32

#: The part of all entries from which on sparse factors take longer than dense ones: they find a tenth to a fourth as
#: many in the same time (SciPy 1.17).
FULL = 0.4


class Reordered:
    """Factors of a matrix whose rows and columns were put in another order."""

    def __init__(self, place: Permutation, factors: Factors) -> None:
        self._place, self._factors = place, factors

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        before, after = self._place.rows, self._place.columns
        if transposed:
            before, after = after, before
        found = numpy.empty_like(right)
        found[after] = self._factors.solve(right[before], transposed)
        return found

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant; the same order of rows and columns keeps its sign."""
        return self._factors.slogdet()


def factorise(pattern: MatrixPattern, values: Array) -> tuple[Factors, str]:
    """Return the factors of a matrix, and how they were found, in words.

    Its values are those of its nonzeros, or of a narrow one its diagonals in their `layout`.

    Raises:
        torch.linalg.LinAlgError: where the matrix is singular.
        DependentError: instead, where its diagonals were given: they are spoiled, and nonzeros tell more.
    """
    if is_narrow(pattern):
        band = _banded(pattern, pattern.in_order(values))
        return band, f"banded: {band.told}"
    below, above = pattern.band
    if not below or not above:
        lu = SuperLU(pattern, pattern.in_order(values), "TRIANGULAR")
        return lu, f"triangular: {'lower' if below else 'upper'}, by substitution"
    apart = plan(pattern)
    if apart is not None:
        try:
            arrow = Arrow(apart, values, pattern.symmetric)
        except UnfitError:
            pass
        else:
            return arrow, f"arrow: {arrow.told}"
    values, narrow = pattern.in_order(values), _narrowed(pattern)
    if narrow is not None:
        band = _banded(pattern, values, narrow)
        return Reordered(narrow[0], band), f"banded, in the order of reverse Cuthill-McKee: {band.told}"
    return sparse_lu(pattern, values)


def sparse_lu(pattern: MatrixPattern, values: Array) -> tuple[Factors, str]:
    """L U in an order of minimum degree if its pivots serve, else by COLAMD, as for some systems from then on."""
    if pattern.notes.get("full"):
        return WrittenOut(pattern, values), "dense L U: sparse ones had nearly as many numbers"
    left, wait = pattern.notes.get("pivots are searched", (0, SHORTEST_WAIT))
    ordering = diagonal_ordering(pattern, values)
    if left:
        pattern.notes["pivots are searched"] = left - 1, wait
    elif ordering is not None:
        try:
            lu = SuperLU(pattern, values, ordering)
        except UnfitError:
            pattern.notes["pivots are searched"] = wait, min(2 * wait, LONGEST_WAIT)
        else:
            pattern.notes["pivots are searched"] = 0, SHORTEST_WAIT
            _note_full(pattern, lu)
            return lu, f"sparse L U: {lu.told}, pivots on the diagonal"
    lu = SuperLU(pattern, values, "COLAMD")
    _note_full(pattern, lu)
    return lu, f"sparse L U: {lu.told}"


def _note_full(pattern: MatrixPattern, lu: SuperLU) -> None:
    """Note where factors are so full that LAPACK's take less time."""
    pattern.notes["full"] = lu.fill > FULL * pattern.size**2


def _banded(
    pattern: MatrixPattern, values: Array, narrow: tuple[Permutation, MatrixPattern] | None = None
) -> Banded | Tridiagonal:
    """Return the factors of a band, of a matrix as it stands or put in another order."""
    inner, ordered = (pattern, values) if narrow is None else (narrow[1], values[narrow[0].order])
    try:
        return (Tridiagonal if is_tridiagonal(inner) else Banded)(inner, ordered)
    except DependentError as error:
        if values.ndim == 2:
            raise
        column = error.column if narrow is None else int(narrow[0].columns[error.column])
        raise singular(pattern, values, f"column {column} depends linearly on others") from error


def _narrowed(pattern: MatrixPattern) -> tuple[Permutation, MatrixPattern] | None:
    """Return the pattern in the order that brings nonzeros to the diagonal, if it is a narrow band then."""
    return pattern.notes.find("narrowed", lambda: _narrow(pattern))


def _narrow(pattern: MatrixPattern) -> tuple[Permutation, MatrixPattern] | None:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    ones = numpy.ones(len(pattern.index), numpy.int8)
    graph = csr_array((ones, pattern.index, pattern.begin), shape=(pattern.size, pattern.size))
    order: Any = reverse_cuthill_mckee(graph, symmetric_mode=False)
    place = permutation(pattern, order, order)
    inner = MatrixPattern(place.begin, place.column, Notes())
    return (place, inner) if is_narrow(inner) else None
