"""Sparse LU factors by SciPy, as differentiable functions of the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .sparse import import_scipy, scipy_array, split

#: Columns of the inverse are formed so many at a time for the gradient of a determinant.
COLUMNS_AT_ONCE = 64


class Factor:
    """P A Q = L U of a square sparse matrix, kept with the coordinates of its nonzeros."""

    def __init__(self, at: Tensor, values: Tensor, size: int, what: str) -> None:
        """Factorise; raises torch.linalg.LinAlgError where the matrix is singular."""
        scipy = import_scipy(what)
        self.row, self.column = split(at, size)
        self.values, self.size = values, size
        matrix = scipy_array(at, values, size, size, "csc")
        # Where the pattern is symmetric, an ordering of A + Aᵀ halved the fill of a five-point grid.
        symmetric = torch.equal(at, (self.column * size + self.row).sort().values)
        order = "MMD_AT_PLUS_A" if symmetric else "COLAMD"
        try:
            self.lu = scipy.sparse.linalg.splu(matrix, permc_spec=order)
        except RuntimeError as error:
            raise LinAlgError(f"{what}: the Jacobian is singular ({error})") from error

    def solve(self, right: Tensor) -> Tensor:
        """The solution X of A X = right, of shape (n, k); differentiable in the values and in ``right``."""
        solved: Tensor = _Solve.apply(self, False, self.values, right)  # type: ignore[no-untyped-call]
        return solved

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """The sign and the logarithm of the absolute value of det A."""
        pivots = self.lu.U.diagonal()
        swaps = sum(self.size - _cycles(order) for order in (self.lu.perm_r, self.lu.perm_c))
        sign = (-1.0) ** (swaps + int((pivots < 0).sum()))
        logabs: Tensor = _LogAbsDet.apply(self, self.values)  # type: ignore[no-untyped-call]
        return self.values.new_full((), sign), logabs


def _cycles(order: Any) -> int:
    """The number of cycles of a permutation, whose parity is that of its length less this number."""
    scipy = import_scipy("slogdet")
    size = len(order)
    ones = torch.ones(size).numpy()
    graph = scipy.sparse.csr_array((ones, order, torch.arange(size + 1).numpy()), shape=(size, size))
    return int(scipy.sparse.csgraph.connected_components(graph, return_labels=False))


def _run(factor: Factor, transpose: bool, right: Tensor) -> Tensor:
    solved = factor.lu.solve(right.detach().cpu().contiguous().numpy(), trans="T" if transpose else "N")
    return torch.as_tensor(solved).to(right.device, right.dtype)


class _Solve(torch.autograd.Function):
    """X = A⁻¹ B (or A⁻ᵀ B): ∂/∂B pulls back by A⁻ᵀ, ∂/∂A[r, c] is −Λ[r] · X[c] with Λ what is pulled back."""

    @staticmethod
    def forward(ctx: Any, factor: Factor, transpose: bool, values: Tensor, right: Tensor) -> Tensor:
        solved = _run(factor, transpose, right)
        ctx.factor, ctx.transpose = factor, transpose
        ctx.save_for_backward(values, solved)
        return solved

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        values, solved = ctx.saved_tensors
        factor = ctx.factor
        pulled = _Solve.apply(factor, not ctx.transpose, values, cotangents[0])  # type: ignore[no-untyped-call]
        left, right = (solved, pulled) if ctx.transpose else (pulled, solved)
        return None, None, -(left[factor.row] * right[factor.column]).sum(-1), pulled


class _LogAbsDet(torch.autograd.Function):
    """log |det A|: ∂/∂A[r, c] = A⁻¹[c, r], by one solve for each column of the inverse."""

    @staticmethod
    def forward(ctx: Any, factor: Factor, values: Tensor) -> Tensor:
        ctx.factor = factor
        pivots = torch.from_numpy(factor.lu.U.diagonal()).to(values.device, values.dtype)
        return pivots.abs().log().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        factor = ctx.factor
        grad = torch.zeros_like(factor.values)
        for begin in range(0, factor.size, COLUMNS_AT_ONCE):
            count = min(COLUMNS_AT_ONCE, factor.size - begin)
            right = grad.new_zeros(factor.size, count)
            right[begin : begin + count] = torch.eye(count, dtype=grad.dtype, device=grad.device)
            inverse = _run(factor, False, right)
            here = ((factor.row >= begin) & (factor.row < begin + count)).nonzero()[:, 0]
            grad[here] = inverse[factor.column[here], factor.row[here] - begin]
        return None, grad * cotangents[0]
