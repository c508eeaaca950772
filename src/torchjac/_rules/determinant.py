"""The gradient of a determinant where PyTorch's is wrong or has no derivative: of matrices that may be singular.

PyTorch solves with a matrix where it sees that it can. Of a singular one it gives the gradient 0 where no graph is
recorded, and else differentiates a singular value decomposition, which divides by differences of singular values, as it
does inside functorch and where values are not known (torch 2.13). With A = U S Vᵀ the gradient is the cofactor matrix

    C(A) = det(U Vᵀ) U diag(p) Vᵀ      pᵢ = Π_{k≠i} sₖ

and its derivative along B, with B′ = Uᵀ B V and pᵢⱼ = Π_{k≠i,j} sₖ, takes products of singular values alone:

    dC = det(U Vᵀ) U M Vᵀ      Mᵢᵢ = Σ_{j≠i} pᵢⱼ B′ⱼⱼ      Mᵢⱼ = −pᵢⱼ B′ⱼᵢ

The map from B to dC is symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._blocks.tracing import inside_functorch, is_known
from .._capture.tape import Node
from .._plan.recording import whole
from .backward_overrides import BackwardFormula, Results, register
from .products import before, others
from .registry import LocalJacobian, rule


class Cofactors(torch.autograd.Function):
    """The cofactor matrices of a batch of real matrices."""

    @staticmethod
    def forward(matrix: Tensor) -> Tensor:
        """U diag(p) Vᵀ with the sign of U Vᵀ."""
        left, values, right, sign = _decomposed(matrix)
        return sign * left * others(values, -1).unsqueeze(-2) @ right

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep the matrix, for both modes."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        """Return the symmetric map of the cotangent."""
        return _along(ctx.saved_tensors[0], cotangent)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        """Return the same map of the tangent."""
        return _along(ctx.saved_tensors[0], tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], matrix: Tensor) -> tuple[Tensor, int]:
        """Return a batch is one more dim of it."""
        return Cofactors.apply(matrix.movedim(in_dims[0], 0)), 0  # type: ignore[no-untyped-call]


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U, the singular values, Vᵀ, and the sign of U Vᵀ."""
    left, values, right = torch.linalg.svd(matrix)
    return left, values, right, torch.linalg.det((left @ right).detach())[..., None, None].sign()


def _along(matrix: Tensor, direction: Tensor) -> Tensor:
    """Return the derivative of the cofactors along a direction."""
    left, values, right, sign = _decomposed(matrix)
    inner = left.mT @ direction @ right.mT
    rest = _without_two(values)
    diagonal = (rest @ inner.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)).squeeze(-1)
    return sign * left @ (torch.diag_embed(diagonal) - rest * inner.mT) @ right


def _without_two(values: Tensor) -> Tensor:
    """The products of all values but two, 0 on the diagonal: those in front of both, between them, and behind."""
    size = values.shape[-1]
    rows = values.unsqueeze(-2).expand(*values.shape, size)
    above = torch.ones(size, size, dtype=torch.bool, device=values.device).triu(1)
    between = before(torch.where(above, rows, 1), -1)
    behind = before(values.flip(-1), -1).flip(-1)
    upper = torch.where(above, before(values, -1).unsqueeze(-1) * between * behind.unsqueeze(-2), 0)
    return upper + upper.mT


def _det(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Determinants of a batch: g C(A)."""
    matrix = node.saved("A")
    if matrix.is_complex() or not _cannot_solve(node):
        return None
    return [g[..., None, None] * _cofactors(matrix)]


@whole
def _cofactors(matrix: Tensor) -> Tensor:
    """Call the Function in one step of a program, which would else hold the ops in it without its derivative."""
    found: Tensor = Cofactors.apply(matrix)  # type: ignore[no-untyped-call]
    return found


def _cannot_solve(node: Node) -> bool:
    """Return whether a matrix is singular, or may be for all that PyTorch asks: inside functorch it never looks."""
    matrix, value = node.saved("A"), node.saved("result")
    return inside_functorch() or not is_known(matrix) or bool((value == 0).any())


@rule(Cofactors)
def cofactors(node: Node) -> LocalJacobian:
    """Cofactors of a batch: the batch passes."""
    return LocalJacobian(batch_dims={0: tuple((dim, dim) for dim in range(len(node.shape) - 2))})


register(["LinalgDetBackward0"], BackwardFormula(_det, fails=_cannot_solve))
