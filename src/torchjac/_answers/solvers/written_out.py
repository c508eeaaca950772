"""A matrix whose sparse factors would be nearly full: LAPACK's."""

from __future__ import annotations

import torch

from .arrow import factorised
from .matrix import Array, MatrixPattern, UnfitError, singular


class WrittenOut:
    """The factors of a matrix that is written out: Cholesky's where it is symmetric and positive definite, else L U."""

    def __init__(self, pattern: MatrixPattern, values: Array) -> None:
        """Factorise.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
        """
        numbers = torch.from_numpy(values)
        matrix = numbers.new_zeros(pattern.size, pattern.size).mT  # as LAPACK takes it
        matrix[torch.from_numpy(pattern.row).long(), torch.from_numpy(pattern.index).long()] = numbers
        try:
            self._factors = factorised(matrix[None], pattern.symmetric, 0.0)
        except UnfitError as error:
            raise singular(pattern, values, "a pivot is zero") from error

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        first = self._factors.first(torch.from_numpy(right)[None], transposed)
        return self._factors.second(first, transposed)[0].numpy()

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant."""
        return self._factors.slogdet()
