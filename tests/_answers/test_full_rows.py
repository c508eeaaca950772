"""JᵀWJ of Jacobians with rows that are nearly full, against the dense product."""

import pytest
import torch

from torchjac import jacobian
from torchjac._answers import full_rows
from torchjac._answers.forms import LowRankUpdate, SumOfBlocks

N = 40
A = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def total_between(x):
    """A full row between others."""
    return torch.cat([x[1:] - x[:-1] ** 2, x.sum()[None], 0.1 * x])


def two_first(x):
    """Two dense rows before the others."""
    return torch.cat([(A @ x.sin())[:2], x**2 + x.roll(1)])


def rows_of_two(x):
    """Outputs of two dims, with full rows at one position of the first."""
    sums = torch.stack([x.sum() * x.mean(), (x**2).sum()])
    return torch.cat([torch.stack([x, x.sin()], 1), sums[None]])


def matrix_input(x):
    """An input of two dims."""
    return torch.cat([(x**2).reshape(-1), x.logsumexp((0, 1))[None]])


APART = {
    "total between": (total_between, (N,)),
    "two first": (two_first, (N,)),
    "rows of two": (rows_of_two, (N,)),
    "matrix input": (matrix_input, (5, 8)),
}

TOGETHER = {
    "no others": lambda x: A @ x,
    "on the same rows": lambda x: x + x.sum(),
    "rows by a table": lambda x: torch.cat([x.sum()[None], x**2])[torch.arange(N).flip(0)],
    "as many as columns": lambda x: torch.cat([x.cumsum(0), x]),
    "none full": lambda x: torch.cat([x, x[1:] * x[:-1]]),
}


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Take rows of ten entries for wide."""
    monkeypatch.setattr(full_rows, "WIDE", 10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", APART)
def test_kept_apart(name, weighted) -> None:
    """Full rows are a product of low rank beside the rest: products, parts and systems are those of the matrix."""
    f, shape = APART[name]
    x = torch.rand(shape, dtype=torch.float64)
    jac = jacobian(f)(x)
    dense = jac.to_dense().reshape(-1, N)
    weight = torch.rand(jac.out_shape, dtype=torch.float64) if weighted else None
    scale = torch.ones(dense.shape[0]) if weight is None else weight.reshape(-1)
    found = jac.gram(weight).add_diagonal(0.5)
    expected = dense.mT @ (scale[:, None] * dense) + 0.5 * torch.eye(N)
    assert type(found.form) is LowRankUpdate
    assert found.stored < N * N / 2
    right = torch.rand(shape, dtype=torch.float64)
    torch.testing.assert_close(found.to_dense().reshape(N, N), expected)
    torch.testing.assert_close((found @ right).reshape(-1), expected @ right.reshape(-1))
    torch.testing.assert_close(found.diagonal().reshape(-1), expected.diagonal())
    torch.testing.assert_close(
        found.solve(right).reshape(-1), torch.linalg.solve(expected, right.reshape(-1))
    )
    torch.testing.assert_close(found.slogdet()[1], torch.linalg.slogdet(expected)[1])


@pytest.mark.parametrize("name", TOGETHER)
def test_multiplied_out(name) -> None:
    """Where full rows are all there is, are others' too, or are many, the product is a sum of blocks."""
    jac = jacobian(TOGETHER[name])(torch.rand(N, dtype=torch.float64))
    dense = jac.to_dense()
    assert type(jac.gram().form) is SumOfBlocks
    torch.testing.assert_close(jac.gram().to_dense(), dense.mT @ dense)


def test_differentiable() -> None:
    """A damped step is differentiated through both terms."""
    x = torch.rand(N, dtype=torch.float64)

    def step(x, dense):
        jac = jacobian(total_between)(x)
        if dense:
            jac = jac.to_dense()
            return torch.linalg.solve(jac.mT @ jac + torch.eye(N), x)
        return jac.gram().add_diagonal(1.0).solve(x)

    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    step(found, False).square().sum().backward()
    step(expected, True).square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_a_million_unknowns(monkeypatch) -> None:
    """A damped step of differences and their mean stores a few numbers for each unknown."""
    monkeypatch.undo()
    x = torch.rand(10**6, dtype=torch.float64)
    jac = jacobian(lambda x: torch.cat([x[1:] - x[:-1] ** 2, x.mean()[None]]))(x)
    damped = jac.gram().add_diagonal(1.0)
    assert damped.stored < 5 * 10**6
    torch.testing.assert_close(damped @ damped.solve(x), x)
