"""Tridiagonal matrices by LAPACK: Cholesky where they are positive definite, else L U with pivots."""

from __future__ import annotations

from typing import Any

import numpy
import torch

from ..._blocks.places import Places
from .matrix import Array, DependentError, MatrixPattern


class Tridiagonal:
    """L U or L D Lᵀ of a tridiagonal matrix, given by its nonzeros or by its diagonals."""

    def __init__(self, pattern: MatrixPattern, values: Array) -> None:
        """Factorise.

        Raises:
            DependentError: where the matrix is singular.
        """
        from scipy.linalg import get_lapack_funcs

        if values.ndim == 2:
            above, main, below = values[0, 1:], values[1], values[2, :-1]
        else:
            below, main, above = _lines(pattern, values)
        factor, run = get_lapack_funcs(("pttrf", "pttrs"), (values,))
        self.definite = bool((main > 0).all()) and numpy.array_equal(below, above)
        if self.definite:
            *factors, info = factor(main, above)
            self.definite = info == 0
        if not self.definite:
            factor, run = get_lapack_funcs(("gttrf", "gttrs"), (values,))
            *factors, info = factor(
                below, main, above, overwrite_dl=True, overwrite_d=True, overwrite_du=True
            )
            if info > 0:
                raise DependentError(info - 1)
        self._factors, self._run = factors, run

    @property
    def told(self) -> str:
        """The LAPACK routine, in words."""
        routine = "pttrf" if self.definite else "gttrf"
        return f"1 diagonals below and 1 above the main one, LAPACK {routine}"

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        options: dict[str, Any] = {} if self.definite else {"trans": "T" if transposed else "N"}
        solved, info = self._run(*self._factors, right, **options)
        assert info == 0
        return numpy.asarray(solved)

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant, off the pivots."""
        if self.definite:
            return 1.0, float(numpy.log(self._factors[0]).sum())
        diagonal, pivots = self._factors[1], self._factors[-1]
        # LAPACK's own count from one (SciPy 1.11-1.17)
        swaps = int((pivots != numpy.arange(1, 1 + len(pivots))).sum())
        sign = (-1.0) ** (swaps + int((diagonal < 0).sum()))
        return sign, float(numpy.log(numpy.abs(diagonal)).sum())


def _lines(pattern: MatrixPattern, values: Array) -> list[Array]:
    """Return the diagonals below, on and above the main one, each in one piece."""

    def places() -> list[tuple[Places, Places, bool]]:
        begin, last = pattern.begin[:-1], len(pattern.index) - 1
        row, at = numpy.arange(pattern.size, dtype=pattern.index.dtype), begin
        found = []
        for offset in (
            -1,
            0,
            1,
        ):  # columns rise in each row, so the next entry is on this diagonal or on a later one
            here = (at < pattern.begin[1:]) & (pattern.index[numpy.minimum(at, last)] == row + offset)
            along = row[here] + min(offset, 0)
            full = len(along) == pattern.size - abs(offset)
            found.append((Places(torch.from_numpy(at[here])), Places(torch.from_numpy(along)), full))
            at = at + here
        return found

    lines = []
    for offset, (at, along, full) in zip((-1, 0, 1), pattern.notes.find("diagonals", places), strict=True):
        read = at.read(torch.from_numpy(values))
        line = (read.new_empty if full else read.new_zeros)(pattern.size - abs(offset))
        along.write(line, read)
        lines.append(line.numpy())
    return lines
