"""Where entries of blocks with tables stand: sorted by cells where all blocks have some, else one by one."""

import pytest
import torch
from tests._blocks.test_pattern import matrix_of
from torch.func import grad

from torchjac import jacobian
from torchjac._blocks import sort_entries as module

N = 60
A = torch.arange(N)
B = (7 * A + 1) % N  # no node is its own neighbour, nor its neighbour's
W = torch.arange(9, dtype=torch.float64).reshape(3, 3).cos()


def springs(x):
    """The energy of springs between nodes: full cells for each pair of ends, and numbers on their diagonals."""
    return ((x[A] - x[B]).square().sum(-1) - 1).square().sum()


def frames(x):
    """The same between nodes that hold a matrix each."""
    return ((x[A] - x[B]).square().sum((-1, -2)) - 1).square().sum()


def pairs(x):
    """Two outputs for each node, by three inputs of its own and of its neighbour."""
    return (x[A].sin() @ W[:, :2]) * x[B].sum(-1, keepdim=True)


#: Functions, the shape of their argument, what is sorted and the nonzeros.
FUNCTIONS = {
    "springs": (grad(springs), (N, 3), 4 * N, 9 * 3 * N),
    "nodes with a matrix": (grad(frames), (N, 2, 2), 4 * N, 16 * 3 * N),
    "two outputs by three inputs": (pairs, (N, 3), 2 * N, 12 * N),
    "diagonals only": (lambda x: x[A] * x[B], (N, 3), 6 * N, 6 * N),
    "a diagonal beside full cells": (lambda x: x[A].tanh() @ W + x[B].sin(), (N, 3), 12 * N, 12 * N),
    "one column": (lambda x: x[A] * x[B].square(), (N, 1), 2 * N, 2 * N),
    "fields first": (lambda x: W @ x[:, A].tanh() + x[:, B], (3, N), 12 * N, 12 * N),
    "no nodes": (lambda x: x[A[:0]] @ W, (N, 3), 0, 0),
    "no fields": (lambda x: x[A] * 2, (N, 0), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_cells(name, monkeypatch) -> None:
    """The matrix is that of the blocks, and a cell is sorted as one where it is full."""
    f, shape, count, nnz = FUNCTIONS[name]
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jac = jacobian(f)(x)
    sorted_, places = [], module.sorted_places
    monkeypatch.setattr(
        module, "sorted_places", lambda row, column: sorted_.append(len(row)) or places(row, column)
    )
    matrix = matrix_of(jac)
    torch.testing.assert_close(matrix.flatten(), jac.to_dense().flatten())
    assert (sum(sorted_), jac.nnz) == (count, nnz)
    values = jac.to_sparse(torch.sparse_csr).values()
    assert values.numel() == nnz


@pytest.mark.parametrize("name", ["springs", "two outputs by three inputs"])
def test_differentiable(name) -> None:
    """Gradients reach the values of the blocks of cells."""
    f, shape, _, _ = FUNCTIONS[name]
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.rand(shape[0] * 27, dtype=torch.float64)
    jac = jacobian(f)(x)
    values = jac.to_sparse(torch.sparse_csr).values()
    (found,) = torch.autograd.grad((values * weights[: len(values)]).sum(), x, retain_graph=True)
    at = jac.to_dense().flatten()[jac.to_sparse().indices()[0] * x.numel() + jac.to_sparse().indices()[1]]
    (expected,) = torch.autograd.grad((at * weights[: len(values)]).sum(), x)
    torch.testing.assert_close(found, expected)
