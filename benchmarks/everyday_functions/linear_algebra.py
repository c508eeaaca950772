"""Batched and dense linear algebra."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .call import Made, everyday


@everyday((2, 3), (12, 4))
def batched_inverse(batch: int, n: int) -> Made:
    """Inverses of small matrices."""
    return torch.linalg.inv, torch.randn(batch, n, n) + 3 * torch.eye(n)


@everyday((2, 3), (20, 4))
def batched_solve(batch: int, n: int) -> Made:
    """Solutions by the right-hand side and the diagonal."""
    matrix = torch.randn(batch, n, n)

    def f(x: Tensor) -> Tensor:
        return torch.linalg.solve(matrix + torch.diag_embed(x[0] + 5), x[1])

    return f, torch.randn(2, batch, n)


@everyday((3, 2, 4), (16, 4, 8))
def batched_products(batch: int, m: int, n: int) -> Made:
    """A bilinear form of each sample by einsum."""
    weight = torch.randn(m, n, n)
    return lambda x: torch.einsum("bi,kij,bj->bk", x, weight, x), torch.randn(batch, n)


@everyday(3, 10)
def cholesky(n: int) -> Made:
    """The factor of a positive definite matrix."""

    def f(x: Tensor) -> Tensor:
        return torch.linalg.cholesky(x @ x.T + torch.eye(n))

    return f, torch.randn(n, n)


@everyday(3, 12)
def eigenvalues(n: int) -> Made:
    """Eigenvalues of a symmetric matrix that depends on few numbers."""
    parts = torch.randn(4, n, n)

    def f(p: Tensor) -> Tensor:
        matrix = torch.einsum("k,kij->ij", p, parts)
        return torch.linalg.eigvalsh(matrix + matrix.T)

    return f, torch.randn(4)


@everyday(3, 8)
def singular_values(n: int) -> Made:
    """Singular values of a matrix."""
    return torch.linalg.svdvals, torch.randn(n, n)


@everyday(2, 6, order=2)
def log_determinant(n: int) -> Made:
    """The Hessian of log det of a positive definite matrix."""
    return lambda x: torch.logdet(x @ x.T + torch.eye(n)), torch.randn(n, n)


@everyday(3, 6)
def matrix_exponential(n: int) -> Made:
    """The exponential of a generator."""
    return lambda x: torch.linalg.matrix_exp(x - x.T), torch.randn(n, n)


@everyday((4, 3), (20, 8))
def cosine_similarities(rows: int, n: int) -> Made:
    """Similarities of rows to fixed ones."""
    keys = F.normalize(torch.randn(5, n), dim=1)
    return lambda x: F.normalize(x, dim=1) @ keys.T, torch.randn(rows, n)


@everyday((4, 2), (20, 3))
def distances(points: int, n: int) -> Made:
    """Distances of all pairs to fixed points."""
    anchors = torch.randn(6, n)
    return lambda x: torch.cdist(x, anchors), torch.randn(points, n)


@everyday(3, 12)
def sylvester_residual(n: int) -> Made:
    """A matrix equation, Riccati's."""
    a, b = torch.randn(2, n, n)
    return lambda x: a.T @ x + x @ a - x @ b @ b.T @ x + torch.eye(n), torch.randn(n, n)
