"""Block-diagonal but for a border: the blocks are eliminated, the Schur complement solved, and the rest put back.

    A = [C E]     C = L U     S = B − (F U⁻¹) (L⁻¹ E)     x₂ = S⁻¹ (b₂ − F U⁻¹ L⁻¹ b₁)     x₁ = U⁻¹ (L⁻¹ b₁ − L⁻¹ E x₂)
        [F B]

C falls into small blocks once the unknowns of the border are gone, as points do in bundle adjustment once the cameras
are; the blocks of one size are factorised and multiplied as one batch. Where A is symmetric and positive definite, L U
is Cholesky's factorisation and F U⁻¹ is the transpose of L⁻¹ E, else L is C and U is 1.
"""

from __future__ import annotations

from math import prod
from typing import Protocol

import torch
from torch import Tensor

from .arrow_plan import Plan
from .matrix import Array, UnfitError

#: A pivot smaller than this part of its block's largest entry would spoil what is eliminated by it.
SMALL_PIVOT = 1e-8


class Blocks(Protocol):
    """The factors of a batch of small matrices, C = L U."""

    def first(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return L⁻¹ right, or U⁻ᵀ right."""

    def second(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return U⁻¹ right, or L⁻ᵀ right."""

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the product of all determinants."""


class Arrow:
    """The factors of the blocks and of the Schur complement."""

    def __init__(self, found: Plan, values: Array, symmetric: bool = False) -> None:
        """Factorise.

        Raises:
            UnfitError: where a block, or the Schur complement, is close to singular, though the matrix need not be.
        """
        self._plan = found
        numbers = torch.from_numpy(values)
        self._parts: list[tuple[Blocks, Tensor, Tensor]] = []
        for batch in found.batches:
            blocks = factorised(batch.inner.read(numbers), symmetric)
            right = batch.right.read(numbers)
            upper = blocks.first(right).contiguous()
            if symmetric and isinstance(blocks, Cholesky):
                lower = upper
            else:
                lower = blocks.first(right if symmetric else batch.below.read(numbers), True)
            self._parts.append((blocks, upper, lower))
        corner = found.corner.read(numbers)
        taken = torch.zeros_like(corner)
        for each in found.schur:
            each.add(taken, [lower for *_, lower in self._parts], [upper for _, upper, _ in self._parts])
        self._schur = factorised((corner - taken)[None], symmetric, 0.0)
        self.told = (
            f"{sum(batch.unknowns.shape[0] for batch in found.batches):,} blocks eliminated, "
            f"Schur complement of {len(corner):,} unknowns, dense"
        )

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        found, given = self._plan, torch.from_numpy(right)
        outer, columns = found.border.read(given), torch.arange(right.shape[1], device="cpu")
        taken = torch.zeros_like(outer, memory_format=torch.contiguous_format)
        inner = []
        for batch, (blocks, upper, lower) in zip(found.batches, self._parts, strict=True):
            inner.append(blocks.first(batch.unknowns.read(given), transposed))
            rows, matrix = (batch.groups.columns, upper) if transposed else (batch.groups.rows, lower)
            at = rows[:, :, None] * right.shape[1] + columns
            taken.view(-1).scatter_add_(0, at.view(-1), batch.groups.sums(matrix, inner[-1]).view(-1))
        outer = self._schur.second(self._schur.first((outer - taken)[None], transposed), transposed)[0]
        answer = torch.empty_like(given)
        found.border.write(answer, outer)
        for batch, (blocks, upper, lower), part in zip(found.batches, self._parts, inner, strict=True):
            met, matrix = (batch.groups.rows, lower) if transposed else (batch.groups.columns, upper)
            product = batch.groups.spread(matrix, outer[met])
            batch.unknowns.write(answer, blocks.second(part - product, transposed))
        return answer.numpy()

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant: those of the blocks and of the Schur complement."""
        parts = [self._schur.slogdet(), *(blocks.slogdet() for blocks, *_ in self._parts)]
        return prod(sign for sign, _ in parts), sum(logarithm for _, logarithm in parts)


def factorised(matrices: Tensor, symmetric: bool, least: float = SMALL_PIVOT) -> Blocks:
    """Return the factors of a batch of matrices, of symmetric ones by what stands on and below the diagonal.

    Raises:
        UnfitError: where one is close to singular, with a pivot of at most ``least`` times its largest entry.
    """
    if symmetric and matrices.shape[-1] > 1:
        factor, info = torch.linalg.cholesky_ex(matrices)
        pivots = factor.diagonal(dim1=-2, dim2=-1).square()
        if not bool(info.any()) and not _has_weak(pivots, matrices, least):
            return Cholesky(factor)
        matrices = matrices.tril() + matrices.tril(-1).mT
    found = General(matrices)
    if _has_weak(found.pivots, matrices, least):
        raise UnfitError("a block, or the Schur complement, is close to singular")
    return found


def _has_weak(pivots: Tensor, matrices: Tensor, least: float) -> bool:
    if matrices.shape[-1] == 1 or not least:
        return not bool(pivots.all())
    return bool((pivots.abs().amin(-1) <= least * matrices.abs().flatten(1).amax(-1)).any())


class Cholesky:
    """L and U = Lᵀ of symmetric positive definite matrices."""

    def __init__(self, factor: Tensor) -> None:
        self._factor = factor

    def first(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return L⁻¹ right; the transposed matrix has the same factors.

        From the other side, as rows then follow one another in memory (torch 2.13).
        """
        found: Tensor = torch.linalg.solve_triangular(self._factor.mT, right.mT, upper=True, left=False)
        return found.mT

    def second(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return L⁻ᵀ right."""
        found: Tensor = torch.linalg.solve_triangular(self._factor.mT, right, upper=True)
        return found

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the product of all determinants."""
        return 1.0, 2 * float(self._factor.diagonal(dim1=-2, dim2=-1).log().sum())


class General:
    """L = C and U = 1, solved by LAPACK's factors; those of size one are divided by."""

    def __init__(self, matrices: Tensor) -> None:
        self._single = matrices if matrices.shape[-1] == 1 else None
        self._factors = (
            (matrices, torch.ones((), dtype=torch.int32, device="cpu"))
            if self._single is not None
            else torch.linalg.lu_factor_ex(matrices)[:2]
        )

    @property
    def pivots(self) -> Tensor:
        """The pivots of each."""
        return self._factors[0].diagonal(dim1=-2, dim2=-1)

    def first(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return C⁻¹ right, or what is given."""
        return right if transposed else self._solved(right, False)

    def second(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return what is given, or C⁻ᵀ right."""
        return self._solved(right, True) if transposed else right

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the product of all determinants."""
        lu, pivots = self._factors
        diagonal = lu.diagonal(dim1=-2, dim2=-1)
        swaps = (pivots != torch.arange(1, diagonal.shape[-1] + 1, device="cpu")).sum()
        return (-1.0) ** int(swaps + (diagonal < 0).sum()), float(diagonal.abs().log().sum())

    def _solved(self, right: Tensor, transposed: bool) -> Tensor:
        if self._single is not None:
            return right / self._single
        found: Tensor = torch.linalg.lu_solve(*self._factors, right, adjoint=transposed)
        return found
