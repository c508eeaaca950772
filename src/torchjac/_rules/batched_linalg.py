"""Formulas that take many cotangents at once through systems, factors, inverses and determinants of matrices.

A solver is called once for all cotangents together: they stand beside each other, as more
columns of one right-hand side. A product with it is one of all their rows. PyTorch's own formula is wrong under vmap
where the side has more batch dims than the matrix of a solve (torch 2.9-2.14). Of one row it is one call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from .._capture.tape import Node
from .._plan.recording import unrecorded
from .._torch import disable_current_modes, solve_ex
from .batched_formulas import Results, formula
from .einsum_notation import ones
from .products_of_rows import times


def _together(rows: Tensor, dim: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a function gives of the matrices of each row, called once on all beside each other along a dim."""
    count, size = rows.shape[0], rows.shape[dim]
    found = function(rows.movedim(0, dim - 1).flatten(dim - 1, dim))
    apart: Tensor = found.unflatten(dim, (count, size))
    return apart.movedim(dim - 1, 0)


def _system(
    node: Node, solved: Tensor, left: bool, inputs: tuple[int, int], vector: bool = False
) -> list[Tensor | None]:
    """Return what goes to a matrix A and a side B, of the solution X of A X = B or X A = B: −G Xᴴ and G = A⁻ᴴ rows."""
    found: list[Tensor | None] = [None, None]
    matrix, side = inputs
    if node.needs(matrix):
        x = node.saved("result")
        x = (x.unsqueeze(-1) if vector else x).mH.neg()
        found[matrix] = times(solved, x) if left else times(solved.mT, x.mT).mT
    if node.needs(side):
        found[side] = solved.squeeze(-1) if vector else solved
    return found


@cache
def transposes() -> bool:
    """Return whether PyTorch saves the factors of the transpose of a contiguous real matrix: older than 2.13 it may."""
    with disable_current_modes(), unrecorded():
        matrix = torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=torch.float64, device="cpu")
        return float(solve_ex(matrix, matrix)[1][0, 1]) == 0.0


@formula("LinalgSolveExBackward0", several=True)
def _solve(node: Node, count: int, rows: Tensor) -> Results | None:
    matrix, factors, pivots, left = (node.saved(name) for name in ("A", "LU", "pivots", "left"))
    vector = len(node.shape) < matrix.dim()
    transposed = transposes() and matrix.is_contiguous() and not matrix.is_complex()

    def solve(side: Tensor) -> Tensor:
        found: Tensor = (
            torch.linalg.solve(matrix.mH, side, left=left)
            if torch.is_grad_enabled()  # the factors carry no graph
            else torch.linalg.lu_solve(factors, pivots, side, left=left, adjoint=not transposed)
        )
        return found

    solved = _together(rows.unsqueeze(-1) if vector else rows, -1 if left else -2, solve)
    return _system(node, solved, left, (0, 1), vector)


@formula("LinalgSolveTriangularBackward0", several=True)
def _solve_triangular(node: Node, count: int, rows: Tensor) -> Results | None:
    matrix, left, upper, unit = (node.saved(name) for name in ("self", "left", "upper", "unitriangular"))
    solved = _together(
        rows,
        -1 if left else -2,
        lambda side: torch.linalg.solve_triangular(
            matrix.mH, side, upper=not upper, left=left, unitriangular=unit
        ),
    )
    found = _system(node, solved, left, (0, 1))
    if found[0] is not None:
        found[0] = found[0].triu(int(unit)) if upper else found[0].tril(-int(unit))
    return found


@formula("CholeskySolveBackward0", several=True)
def _cholesky_solve(node: Node, count: int, rows: Tensor) -> Results | None:
    factor, upper = node.saved("input2"), node.saved("upper")
    solved = _together(rows, -1, lambda side: torch.cholesky_solve(side, factor, upper=upper))
    found = _system(node, solved, True, (1, 0))
    if (product := found[1]) is not None:
        both = product + product.mH
        found[1] = times(both.mT, factor.mT).mT if upper else times(both, factor)
    return found


@formula("LinalgInvExBackward0", several=True)
def _inverse(node: Node, count: int, rows: Tensor) -> Results | None:
    inverse = node.saved("inverse").mH
    right = _together(rows, -2, lambda below: torch.matmul(below, -inverse))
    return [_together(right, -1, lambda beside: torch.matmul(inverse, beside))]


@formula("LinalgCholeskyExBackward0", "CholeskyBackward0", several=True)
def _cholesky(node: Node, count: int, rows: Tensor) -> Results | None:
    """Cholesky A = L Lᴴ: ½ L⁻ᴴ (T + (T without its diagonal)ᴴ) L⁻¹, T the lower triangle of Lᴴ G."""
    factor = node.saved("L" if node.name.startswith("Linalg") else "result")
    if node.saved("upper"):
        factor, rows = factor.mH, rows.mH
    lower = _together(rows, -1, lambda beside: torch.matmul(factor.mH / 2, beside)).tril()
    right = _together(
        lower + lower.tril(-1).mH,
        -2,
        lambda below: torch.linalg.solve_triangular(factor, below, upper=False, left=False),
    )
    return [_together(right, -1, lambda beside: torch.linalg.solve_triangular(factor.mH, beside, upper=True))]


@formula("LinalgMatrixExpBackward0", several=True)
def _matrix_exp(node: Node, count: int, rows: Tensor) -> Results:
    x = node.saved("self")
    return [torch.ops.aten.matrix_exp_backward.default(x.expand(rows.shape), rows)]


@formula("LinalgEighBackward0", several=True)
def _eigh(node: Node, count: int, of_values: Tensor | None, of_vectors: Tensor | None) -> Results | None:
    """Symmetric x = V diag(l) Vᵀ: V (diag gl + (W − Wᵀ) / 2 (lⱼ − lᵢ)) Vᵀ, W = Vᵀ gV, the quotient off the diagonal."""
    if node.touches_complex:
        return None  # PyTorch asks for cotangents that do not depend on the phase of vectors
    values, v = node.saved("eigenvalues"), node.saved("eigenvectors")
    if of_vectors is None:
        return None if of_values is None else [(v * of_values.unsqueeze(-2)) @ v.mT]
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1) + torch.diag_embed(torch.full_like(values, torch.inf))
    turned = v.mT @ of_vectors
    inner = (turned - turned.mT) / (2 * gaps)
    if of_values is not None:
        inner = inner + torch.diag_embed(of_values)
    return [v @ inner @ v.mT]


@formula("LinalgSvdBackward0", several=True)
def _svd(node: Node, count: int, of_u: None, of_values: Tensor | None, of_v: None) -> Results | None:
    """Singular values alone, x = U diag(s) Vᵀ: U diag(gs) Vᵀ."""
    if of_values is None or of_u is not None or of_v is not None:
        return None
    values = of_values.shape[-1]  # full matrices have more vectors
    return [(node.saved("U")[..., :values] * of_values.unsqueeze(-2)) @ node.saved("Vh")[..., :values, :]]


@formula("LinalgDetBackward0", "LinalgSlogdetBackward0")
def _determinant(node: Node, count: int, *cotangents: Tensor | None) -> Results | None:
    """Determinant, and its logarithm: the node called on ones is the slope of each matrix. A sign has none."""
    rows = cotangents[-1]
    if node.saved("A").is_complex():
        return None
    if rows is None:
        return [None]
    return [rows[..., None, None] * node.vjp(*[None] * (len(cotangents) - 1), ones(node))]
