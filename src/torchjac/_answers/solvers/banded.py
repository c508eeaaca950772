"""Banded matrices by LAPACK: tridiagonal or wider, Cholesky where they are positive definite; reordered or not."""

from __future__ import annotations

from typing import Any

import numpy

from .matrix import Array, DependentError, Pattern

#: LAPACK's band holds whole diagonals; up to so many numbers for each nonzero it is faster than a sparse factorisation.
MOST_FILL = 8


def is_narrow(pattern: Pattern) -> bool:
    """Whether the nonzeros stand close enough to the diagonal."""
    below, above = pattern.band
    return (2 * below + above + 1) * pattern.size <= MOST_FILL * len(pattern.index)


class Banded:
    """L U or L Lᵀ of a banded matrix."""

    def __init__(self, pattern: Pattern, values: Array) -> None:
        """Factorise.

        Raises:
            DependentError: where the matrix is singular.
        """
        self._below, self._above = pattern.band
        band, main = _written(pattern, values)
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
        """X with A X = right, or Aᵀ X = right."""
        run, factors = self._solve, self._factors
        if self._routine in ("pttrf", "pbtrf"):
            solved, info = run(*factors, right)
        elif self._routine == "gttrf":
            solved, info = run(*factors, right, trans="T" if transposed else "N")
        else:
            lu, pivots = factors
            solved, info = run(lu, self._below, self._above, right, pivots, trans=int(transposed))
        assert info == 0
        return numpy.asarray(solved)

    def slogdet(self) -> tuple[float, float]:
        """The sign and the logarithm of the determinant, off the pivots."""
        if self._routine == "pttrf":
            return 1.0, float(numpy.log(self._factors[0]).sum())
        if self._routine == "pbtrf":
            return 1.0, 2 * float(numpy.log(self._factors[0][self._above]).sum())
        if self._routine == "gttrf":
            diagonal, pivots = self._factors[1], self._factors[-1]
            first = 1  # LAPACK's own count from one (SciPy 1.11-1.17)
        else:
            lu, pivots = self._factors
            diagonal, first = lu[self._below + self._above], 0
        swaps = int((pivots != numpy.arange(first, first + len(pivots))).sum())
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
        if above == 1:
            *factors, info = self._take("pttrf", band)(band[main], band[main - 1, 1:])
        else:
            *factors, info = self._take("pbtrf", band)(band[main - above : main + 1])
        self._factors: tuple[Any, ...] = tuple(factors)
        return bool(info == 0)

    def _general(self, band: Array, main: int) -> int:
        """Factorise with pivots; the number of the first pivot that is zero, from one."""
        if self._below == self._above == 1:
            lines = band[main + 1, :-1], band[main], band[main - 1, 1:]
            *factors, info = self._take("gttrf", band)(
                *lines, overwrite_dl=True, overwrite_d=True, overwrite_du=True
            )
        else:
            *factors, info = self._take("gbtrf", band)(band, self._below, self._above, overwrite_ab=True)
        self._factors = tuple(factors)
        return int(info)


def _written(pattern: Pattern, values: Array) -> tuple[Array, int]:
    """The diagonals as rows of an array, and which is the main one.

    LAPACK wants the columns of a band in one piece, with room above for as many diagonals more as stand below; of a
    tridiagonal matrix the diagonals.
    """
    below, above = pattern.band
    by_line = below == above == 1
    main, size = (1 if by_line else below + above), pattern.size
    height = main + below + 1

    def places() -> Array:
        column = pattern.index.astype(numpy.int64)
        line = main + pattern.row - column
        return line * size + column if by_line else column * height + line

    band = numpy.zeros(height * size, values.dtype)
    band[pattern.note("places in the band", places)] = values
    return (band.reshape(height, size) if by_line else band.reshape(size, height).T), main
