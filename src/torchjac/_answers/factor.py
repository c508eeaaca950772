"""Sparse LU factors by SciPy, as differentiable functions of the values."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .sparse import import_scipy, split

#: Columns of the inverse are formed so many at a time for the gradient of a determinant.
COLUMNS_AT_ONCE = 64

#: How SuperLU takes a matrix whose pattern is symmetric, as its users' guide advises. An ordering of A + Aᵀ halved
#: the fill of a five-point grid; keeping a diagonal pivot of a tenth of its column's largest entry halved the time
#: of a bundle adjustment's Gram matrix.
SYMMETRIC = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.1,
    "options": {"SymmetricMode": True},
}


class Factor:
    """P A Q = L U of a square sparse matrix, kept with the coordinates of its nonzeros."""

    def __init__(self, at: Tensor, values: Tensor, size: int) -> None:
        """Keep the matrix; it is factorised where it is first needed."""
        self.at, self.values, self.size = at, values, size
        self.row, self.column = split(at, size)
        self._lu: Any = None

    def solve(self, right: Tensor) -> Tensor:
        """The solution X of A X = right, of shape (n, k); differentiable in the values and in ``right``.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
        """
        solved: Tensor = _Solve.apply(self, False, self.values, right)  # type: ignore[no-untyped-call]
        return solved

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """The sign and the logarithm of the absolute value of det A.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
        """
        logabs: Tensor = _LogAbsDet.apply(self, self.values)  # type: ignore[no-untyped-call]
        if bool(logabs.isnan()):
            return torch.zeros_like(logabs.detach()), logabs  # as torch.linalg.slogdet
        swaps = sum(self.size - _cycles(order) for order in (self._lu.perm_r, self._lu.perm_c))
        sign = (-1.0) ** (swaps + int((self._lu.U.diagonal() < 0).sum()))
        return torch.full((), sign, dtype=logabs.dtype, device=logabs.device), logabs

    def __getstate__(self) -> dict[str, Any]:
        """Without SciPy's factors, which cannot be copied: a copy factorises anew where it has to."""
        return {**self.__dict__, "_lu": None}

    def lu(self, values: Tensor) -> Any:
        """SciPy's factors, made once; ``values`` are the matrix's own, free of any transform's wrapper.

        None where there are none because of values that are not finite: every solution is NaN then, as of a dense
        matrix. SuperLU calls them singular too, as it finds no pivot among them.
        """
        if self._lu is None:
            scipy = import_scipy("solve and slogdet of a sparse Jacobian")
            symmetric = torch.equal(self.at, (self.column * self.size + self.row).sort().values)
            places = (self.row.cpu().numpy(), self.column.cpu().numpy())
            size = (self.size, self.size)
            matrix = scipy.sparse.coo_array((values.detach().cpu().numpy(), places), shape=size).tocsc()
            try:
                self._lu = scipy.sparse.linalg.splu(matrix, **(SYMMETRIC if symmetric else {}))
            except RuntimeError as error:
                if not values.isfinite().all():
                    return None
                raise LinAlgError(f"the Jacobian is singular ({error})") from error
        return self._lu


def _cycles(order: Any) -> int:
    """The number of cycles of a permutation, whose parity is that of its length less this number."""
    scipy = import_scipy("slogdet of a sparse Jacobian")
    size = len(order)
    ones, begin = numpy.ones(size), numpy.arange(size + 1)  # inside functorch a torch tensor has no memory
    graph = scipy.sparse.csr_array((ones, order, begin), shape=(size, size))
    return int(scipy.sparse.csgraph.connected_components(graph, return_labels=False))


def _run(lu: Any, transpose: bool, right: Tensor) -> Tensor:
    if lu is None:
        return torch.full_like(right, torch.nan)
    solved = lu.solve(right.detach().cpu().contiguous().numpy(), trans="T" if transpose else "N")
    return torch.as_tensor(solved).to(right.device, right.dtype)


def _refuse_vmap() -> NoReturn:
    raise NotImplementedError(
        "a sparse Jacobian is factorised by SciPy, which vmap cannot see into; solve for one sample after another, "
        "or use torch.linalg on J.to_dense()"
    )


class _Solve(torch.autograd.Function):
    """X = A⁻¹ B (or A⁻ᵀ B): ∂/∂B pulls back by A⁻ᵀ, ∂/∂A[r, c] is −Λ[r] · X[c] with Λ what is pulled back."""

    @staticmethod
    def forward(factor: Factor, transpose: bool, values: Tensor, right: Tensor) -> Tensor:
        return _run(factor.lu(values), transpose, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor, ctx.transpose, values, _ = inputs
        ctx.save_for_backward(values, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        values, solved = ctx.saved_tensors
        factor = ctx.factor
        pulled = _Solve.apply(factor, not ctx.transpose, values, cotangents[0])  # type: ignore[no-untyped-call]
        left, right = (solved, pulled) if ctx.transpose else (pulled, solved)
        return None, None, -(left[factor.row] * right[factor.column]).sum(-1), pulled

    @staticmethod
    def vmap(*_: Any) -> Any:
        _refuse_vmap()


class _LogAbsDet(torch.autograd.Function):
    """log |det A|: ∂/∂A[r, c] = A⁻¹[c, r], by one solve for each column of the inverse."""

    @staticmethod
    def forward(factor: Factor, values: Tensor) -> Tensor:
        lu = factor.lu(values)
        if lu is None:
            return values.new_full((), torch.nan)
        pivots = torch.from_numpy(lu.U.diagonal()).to(values.device, values.dtype)
        return pivots.abs().log().sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor, values = inputs
        ctx.save_for_backward(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        factor, (values,) = ctx.factor, ctx.saved_tensors
        inverse = _Inverse.apply(factor, values)  # type: ignore[no-untyped-call]
        return None, inverse * cotangents[0]

    @staticmethod
    def vmap(*_: Any) -> Any:
        _refuse_vmap()


class _Inverse(torch.autograd.Function):
    """The entries A⁻¹[c, r] for each nonzero A[r, c], some columns at a time; not differentiable."""

    @staticmethod
    def forward(factor: Factor, values: Tensor) -> Tensor:
        found = torch.zeros_like(values)
        for begin in range(0, factor.size, COLUMNS_AT_ONCE):
            count = min(COLUMNS_AT_ONCE, factor.size - begin)
            right = values.new_zeros(factor.size, count)
            right[begin : begin + count] = torch.eye(count, dtype=values.dtype, device=values.device)
            inverse = _run(factor.lu(values), False, right)
            here = ((factor.row >= begin) & (factor.row < begin + count)).nonzero()[:, 0]
            found[here] = inverse[factor.column[here], factor.row[here] - begin]
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        return None, None
