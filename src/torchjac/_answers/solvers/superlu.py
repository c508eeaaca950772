"""Sparse L U by SciPy's SuperLU, in the ordering that fits the matrix, which is kept for the next one like it."""

from __future__ import annotations

from typing import Any

import numpy

from .matrix import Array, MatrixPattern, UnfitError, singular
from .minimum_degree import by_pairs, dense_last, weak_pivots
from .permuted import Permutation, permutation

#: Where more rows than this part have a weak pivot, or some none, these are eliminated in pairs.
MOST_WEAK = 0.01

#: The columns that SuperLU finds at once where L and U have fewer numbers in each than these: 20, SciPy's default, take
#: up to twice as long in sparse factors, and one at a time 1.6 times as long as 20 in full ones (SciPy 1.17).
PANELS = ((64, 1), (160, 4))

#: The part of the nonzeros beside the diagonal that have a mirror image, from which on orders of A + Aᵀ have the least
#: fill (Davis, UMFPACK: the symmetric strategy).
SYMMETRIC = 0.5

#: A pivot on the diagonal of pairs is kept where it is not smaller than this part of its column's largest.
THRESHOLD = 0.01

#: The units in the last place to which factors with pivots on the diagonal must give back a right side.
MOST_ERROR = 500


class SuperLU:
    """P A Q = L U in one ordering.

    "MMD_AT_PLUS_A" orders a matrix with a mostly symmetric pattern by minimum degree and takes its pivots where they
    stand, on the diagonal: the least fill for grids and meshes, which a search for pivots would undo. "PAIRS" does so
    where many are weak or missing, as those of saddle points, which come beside an unknown that they meet. "COLAMD"
    looks for pivots, and its fill holds whatever they are. "TRIANGULAR" is a triangle as it stands.
    """

    def __init__(self, pattern: MatrixPattern, values: Array, ordering: str) -> None:
        """Factorise.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
            UnfitError: where pivots on the diagonal lose accuracy, or those of pairs fill in more than was foreseen.
        """
        from scipy.sparse import csc_array
        from scipy.sparse.linalg import splu

        if pattern.is_singular:  # SuperLU reads memory that is not its own then (SciPy 1.11-1.17)
            raise singular(pattern, values, "some row has no pivot")
        self._size, self._ordering = pattern.size, ordering
        known = _known(pattern, values, ordering)
        begin, index, ordered = (
            (pattern.begin, pattern.index, values)
            if known is None
            else (known.begin, known.column, values[known.order])
        )
        # By rows it is the transpose by columns.
        matrix = csc_array((ordered, index, begin), shape=(self._size, self._size))
        self._place = known
        is_diagonal = ordering in ("MMD_AT_PLUS_A", "PAIRS")
        try:
            self._lu = splu(matrix, **_options(pattern, ordering, known is not None))
        except RuntimeError as error:
            if is_diagonal:
                raise UnfitError(str(error)) from error
            raise singular(pattern, values, str(error)) from error
        if is_diagonal and not self._is_accurate(matrix):
            raise UnfitError("pivots on the diagonal lose accuracy")
        if self._lu.nnz > pattern.notes.get((ordering, "foreseen"), self._lu.nnz):
            pattern.notes.pop(ordering, None)  # other pairs may fit the next values
            raise UnfitError("pivots of pairs fill in more than was foreseen")
        if known is None and ordering != "TRIANGULAR":
            order = numpy.argsort(self._lu.perm_c)
            columns = numpy.arange(self._size) if ordering == "COLAMD" else order
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
    def fill(self) -> int:
        """The numbers in L and U."""
        return int(self._lu.nnz)

    @property
    def told(self) -> str:
        """The ordering and its fill."""
        return f"SuperLU, ordering {self._ordering}, {self.fill:,} numbers in L and U"

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


def diagonal_ordering(pattern: MatrixPattern, values: Array) -> str | None:
    """Return the ordering with pivots on the diagonal that is worth a trial; none where patterns are not symmetric."""
    if pattern.symmetry < SYMMETRIC:
        return None
    if pattern.diagonal is None:
        return "PAIRS"
    return "MMD_AT_PLUS_A" if weak_pivots(pattern, values).mean() <= MOST_WEAK else "PAIRS"


def _known(pattern: MatrixPattern, values: Array, ordering: str) -> Permutation | None:
    """Return the order that is known of a pattern before it is factorised; None where SuperLU is to find it.

    Raises:
        UnfitError: where there is none by pairs.
    """
    if ordering in pattern.notes:
        found: Permutation = pattern.notes[ordering]
        return found
    if ordering == "MMD_AT_PLUS_A":
        return dense_last(pattern)
    if ordering != "PAIRS":
        return None
    paired = by_pairs(pattern, values)
    if paired is None:
        raise UnfitError("too many weak pivots meet no other unknown strongly")
    found, pattern.notes[ordering, "foreseen"] = paired
    return found


def _options(pattern: MatrixPattern, ordering: str, is_ordered: bool) -> dict[str, Any]:
    """Return what SuperLU is told."""
    found: dict[str, Any] = {"permc_spec": "NATURAL" if is_ordered or ordering == "TRIANGULAR" else ordering}
    if ordering != "COLAMD":
        found["diag_pivot_thresh"] = THRESHOLD if ordering == "PAIRS" else 0.0
    if ordering in ("MMD_AT_PLUS_A", "PAIRS"):
        found["options"] = {"SymmetricMode": True}
    fill = pattern.notes.get((ordering, "fill"))
    panel = next((panel for most, panel in PANELS if fill is not None and fill < most * pattern.size), None)
    return found if panel is None else {**found, "panel_size": panel}


def _cycles(order: Array) -> int:
    """Return the number of cycles of a permutation, whose parity is that of its length less this number."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = len(order)
    graph = csr_array((numpy.ones(size), order, numpy.arange(size + 1)), shape=(size, size))
    return int(connected_components(graph, return_labels=False))
