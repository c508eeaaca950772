"""Banded matrices by LAPACK: Cholesky where they are positive definite, else L U with pivots."""

from __future__ import annotations

from typing import Any

import numpy

from ..diagonals import Layout
from .matrix import Array, DependentError, MatrixPattern

#: LAPACK's band holds whole diagonals; up to this many numbers a nonzero it is faster than a sparse factorisation.
MOST_FILL = 8


def is_narrow(pattern: MatrixPattern) -> bool:
    """Return whether the nonzeros stand close enough to the diagonal."""
    below, above = pattern.band
    return (2 * below + above + 1) * pattern.size <= MOST_FILL * len(pattern.index)


def is_tridiagonal(pattern: MatrixPattern) -> bool:
    """Return whether LAPACK's routines of three diagonals take the matrix; SciPy's refuse two rows (1.17)."""
    return pattern.band == (1, 1) and pattern.size > 2


def layout(pattern: MatrixPattern) -> Layout:
    """Return the layout of a band for LAPACK, which wants its columns in one piece; three diagonals are apart."""
    below, above = pattern.band
    return (
        Layout(3, 1, False) if is_tridiagonal(pattern) else Layout(2 * below + above + 1, below + above, True)
    )


class Banded:
    """L U or L Lᵀ of a banded matrix, given by its nonzeros or by its diagonals in their `layout`."""

    def __init__(self, pattern: MatrixPattern, values: Array) -> None:
        """Factorise.

        Raises:
            DependentError: where the matrix is singular.
        """
        self._below, self._above = pattern.band
        band, main = values.T if values.ndim == 2 else _written(pattern, values), self._below + self._above
        if not self._cholesky(band, main):
            info = self._general(band, main)
            if info > 0:
                raise DependentError(info - 1)

    @property
    def told(self) -> str:
        """The LAPACK routine, in words."""
        band = f"{self._below} diagonals below and {self._above} above the main one"
        return f"{band}, LAPACK {self._routine}"

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        run, factors = self._solve, self._factors
        if self._routine == "pbtrf":
            solved, info = run(*factors, right)
        else:
            lu, pivots = factors
            solved, info = run(lu, self._below, self._above, right, pivots, trans=int(transposed))
        assert info == 0
        return numpy.asarray(solved)

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant, off the pivots."""
        if self._routine == "pbtrf":
            return 1.0, 2 * float(numpy.log(self._factors[0][self._above]).sum())
        lu, pivots = self._factors
        diagonal = lu[self._below + self._above]
        swaps = int((pivots != numpy.arange(len(pivots))).sum())
        sign = (-1.0) ** (swaps + int((diagonal < 0).sum()))
        return sign, float(numpy.log(numpy.abs(diagonal)).sum())

    def _take(self, routine: str, like: Array) -> Any:
        from scipy.linalg import get_lapack_funcs

        self._routine = routine
        factor, self._solve = get_lapack_funcs((routine, routine.replace("trf", "trs")), (like,))
        return factor

    def _cholesky(self, band: Array, main: int) -> bool:
        """Try to factorise as a positive definite matrix, if it is symmetric with a positive diagonal."""
        above = self._above
        if self._below != above or not (band[main] > 0).all():
            return False
        for k in range(1, above + 1):
            if not numpy.array_equal(band[main - k, k:], band[main + k, : band.shape[1] - k]):
                return False
        *factors, info = self._take("pbtrf", band)(band[main - above : main + 1])
        self._factors: tuple[Any, ...] = tuple(factors)
        return bool(info == 0)

    def _general(self, band: Array, main: int) -> int:
        """Factorise with pivots; the number of the first pivot that is zero, from one."""
        *factors, info = self._take("gbtrf", band)(band, self._below, self._above, overwrite_ab=True)
        self._factors = tuple(factors)
        return int(info)


def _written(pattern: MatrixPattern, values: Array) -> Array:
    """Return the diagonals as rows of an array, the main one after as many as stand below and above it.

    LAPACK wants the columns of a band in one piece.
    """
    below, above = pattern.band
    height, size = 2 * below + above + 1, pattern.size

    def places() -> Array:
        found: Array = pattern.index.astype(numpy.int64)
        found *= height - 1
        found += pattern.row
        found += below + above
        return found

    band = numpy.zeros(height * size, values.dtype)
    band[pattern.notes.find("places in the band", places)] = values
    return band.reshape(size, height).T
