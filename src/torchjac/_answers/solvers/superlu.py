"""Sparse L U by SciPy's SuperLU, in the ordering that fits the matrix, which is kept for the next one like it."""

from __future__ import annotations

from typing import Any

import numpy

from .matrix import Array, MatrixPattern, UnfitError, singular
from .permuted import Permutation, permutation

#: A diagonal entry smaller than this part of its row's largest is a weak pivot; where too many rows have one, or none,
#: an ordering that keeps the pivots there is not tried. Where it is, what it gives is checked.
WEAK = 0.001
MOST_WEAK = 0.01

#: Fewer numbers in L and U are found a column at a time: panels of 20, SciPy's default, take up to 1.4 times as long
#: there (SciPy 1.17), and half of it where the factors do not fit into the processor's cache.
FEW = 10_000_000

#: Rows and columns with more nonzeros than this times the square root of the size take minimum degree quadratic time:
#: they come last, where they fill in nothing but themselves (Amestoy, Davis & Duff, AMD).
DENSE = 10

#: The part of the nonzeros beside the diagonal that have a mirror image, from which on orders of A + Aᵀ have the least
#: fill (Davis, UMFPACK: the symmetric strategy).
SYMMETRIC = 0.5

#: The units in the last place to which factors without a search for pivots must give back a right side.
MOST_ERROR = 500


class SuperLU:
    """P A Q = L U in one ordering.

    "MMD_AT_PLUS_A" orders a matrix with a mostly symmetric pattern by minimum degree and takes its pivots where they
    stand, on the diagonal: the least fill for grids and meshes, which a search for pivots would undo. "COLAMD" looks
    for pivots, and its fill holds whatever they are. "TRIANGULAR" is a triangle as it stands.
    """

    def __init__(self, pattern: MatrixPattern, values: Array, ordering: str) -> None:
        """Factorise.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
            UnfitError: where pivots on the diagonal lose accuracy.
        """
        from scipy.sparse import csc_array
        from scipy.sparse.linalg import splu

        if pattern.is_singular:  # SuperLU reads memory that is not its own then (SciPy 1.11-1.17)
            raise singular(pattern, values, "some row has no pivot")
        self._size, self._ordering = pattern.size, ordering
        fixed = ordering != "COLAMD"
        options: dict[str, Any] = {"diag_pivot_thresh": 0.0} if fixed else {}
        if ordering == "MMD_AT_PLUS_A":
            options["options"] = {"SymmetricMode": True}
            if pattern.notes.get((ordering, "fill"), FEW) < FEW:
                options["panel_size"] = 1
        known: Permutation | None = pattern.notes.get(ordering)
        if known is None and ordering == "MMD_AT_PLUS_A":
            known = _dense_last(pattern)
        options["permc_spec"] = "NATURAL" if known is not None or ordering == "TRIANGULAR" else ordering
        begin, index, ordered = (
            (pattern.begin, pattern.index, values)
            if known is None
            else (known.begin, known.column, values[known.order])
        )
        # By rows it is the transpose by columns.
        matrix = csc_array((ordered, index, begin), shape=(self._size, self._size))
        self._place = known
        try:
            self._lu = splu(matrix, **options)
        except RuntimeError as error:
            if ordering == "MMD_AT_PLUS_A":
                raise UnfitError(str(error)) from error
            raise singular(pattern, values, str(error)) from error
        if ordering == "MMD_AT_PLUS_A" and not self._is_accurate(matrix):
            raise UnfitError("pivots on the diagonal lose accuracy")
        if known is None and ordering != "TRIANGULAR":
            order = numpy.argsort(self._lu.perm_c)
            columns = order if fixed else numpy.arange(self._size)
            known = permutation(pattern, order, columns)
        if known is not None:
            pattern.notes[ordering] = known
            pattern.notes[ordering, "fill"] = self._lu.nnz

    def _is_accurate(self, matrix: Any) -> bool:
        """Return whether a system is solved with a small backward error (Higham, Accuracy and Stability, eq. 7.2)."""
        right = numpy.cos(numpy.arange(self._size)).astype(matrix.dtype)
        solved = self._lu.solve(right)
        error = numpy.abs(matrix @ solved - right).max()
        scale = abs(matrix).sum(1).max() * numpy.abs(solved).max() + 1
        return bool(error <= MOST_ERROR * numpy.finfo(matrix.dtype).eps * scale)

    @property
    def told(self) -> str:
        """The ordering and its fill."""
        return f"SuperLU, ordering {self._ordering}, {self._lu.nnz:,} numbers in L and U"

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        trans = "N" if transposed else "T"
        if self._place is None:
            return numpy.asarray(self._lu.solve(right, trans=trans))
        # What is factorised is Aᵀ[columns, rows].
        rows, columns = self._place.rows, self._place.columns
        before, after = (columns, rows) if transposed else (rows, columns)
        found = numpy.empty_like(right)
        found[after] = self._lu.solve(numpy.ascontiguousarray(right[before]), trans=trans)
        return found

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant, off the diagonal of U."""
        orders = [self._lu.perm_r, self._lu.perm_c]
        if self._place is not None:
            orders += [self._place.rows, self._place.columns]
        swaps = sum(self._size - _cycles(order) for order in orders)
        diagonal = self._lu.U.diagonal()
        return (-1.0) ** (swaps + int((diagonal < 0).sum())), float(numpy.log(numpy.abs(diagonal)).sum())


def has_strong_diagonal(pattern: MatrixPattern, values: Array) -> bool:
    """Return whether pivots on the diagonal are worth a trial: the pattern is mostly symmetric, few are weak."""
    at = pattern.diagonal
    if at is None or pattern.symmetry < SYMMETRIC:
        return False
    size = numpy.abs(values)
    weak = numpy.zeros(pattern.size, bool)
    weak[pattern.row[WEAK * size > size[at][pattern.row]]] = True
    return bool(weak.sum() <= MOST_WEAK * pattern.size)


def _dense_last(pattern: MatrixPattern) -> Permutation | None:
    """Return the order of minimum degree with nearly full rows and columns last; None where none or most are full."""
    degree = numpy.bincount(pattern.row, minlength=pattern.size) + numpy.bincount(
        pattern.index, minlength=pattern.size
    )
    dense = degree > 2 * max(16, DENSE * pattern.size**0.5)
    if not dense.any() or 2 * dense.sum() > pattern.size:
        return None
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    others = numpy.flatnonzero(~dense)
    place = numpy.cumsum(~dense) - 1
    both = ~(dense[pattern.row] | dense[pattern.index])
    row, column = place[pattern.row[both]], place[pattern.index[both]]
    # Whatever the values are, these have their pivots on the diagonal.
    values = numpy.where(row == column, float(pattern.size), -1.0)
    inner = csc_array((values, (column, row)), shape=(len(others), len(others)))
    options = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    order = numpy.argsort(splu(inner, permc_spec="MMD_AT_PLUS_A", **options).perm_c)
    order = numpy.concatenate([others[order], numpy.flatnonzero(dense)])
    return permutation(pattern, order, order)


def _cycles(order: Array) -> int:
    """Return the number of cycles of a permutation, whose parity is that of its length less this number."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = len(order)
    graph = csr_array((numpy.ones(size), order, numpy.arange(size + 1)), shape=(size, size))
    return int(connected_components(graph, return_labels=False))
