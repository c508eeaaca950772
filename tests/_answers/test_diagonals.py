"""Narrow matrices that LAPACK is given by their diagonals, straight from blocks."""

import pytest
import torch
from torch.nn.functional import pad

from torchjac import jacobian
from torchjac._blocks.pattern import Pattern

DOUBLE = torch.float64


def three(x):
    """A tridiagonal system that is not symmetric, with rows of their own at both ends."""
    return torch.cat([x[:1], x[1:-1] ** 2 * 3 + x[2:].sin() * x[:-2], x[-1:] * 2])


def definite(x):
    """A symmetric one that is positive definite."""
    p = pad(x, (1, 1))
    return 4 * x - p[2:] - p[:-2]


def five(x):
    """Two diagonals above the main one and one below, each in several blocks."""
    p = pad(x, (1, 2))
    return 5 * x + x**2 + p[3:] * p[1:-2] + p[:-3].sin() - p[2:-1]


def components(x):
    """Three components at each point that meet each other and their neighbours."""
    p = pad(x.T, (1, 1)).T
    return 9 * x + p[2:] * x.sum(-1, keepdim=True) - p[:-2]


SYSTEMS = {
    "three": (three, (400,), "1 diagonals below and 1 above the main one, LAPACK gttrf"),
    "definite": (definite, (400,), "1 diagonals below and 1 above the main one, LAPACK pttrf"),
    "five": (five, (400,), "1 diagonals below and 2 above the main one, LAPACK gbtrf"),
    "components": (components, (150, 3), "3 diagonals below and 3 above the main one, LAPACK gbtrf"),
    "single": (lambda x: three(x.float()), (400,), "LAPACK gttrf"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_nonzeros_are_listed(name, monkeypatch) -> None:
    """Solutions of both systems are those of the dense matrix, and the nonzeros of the matrix are never filled in."""
    f, shape, told = SYSTEMS[name]
    x = torch.linspace(1, 2, torch.Size(shape).numel(), dtype=torch.float32 if name == "single" else DOUBLE)
    jac = jacobian(f)(x.reshape(shape))
    monkeypatch.setattr(Pattern, "fill", None)
    size = x.numel()
    dense, right = jac.to_dense().reshape(size, size), torch.rand(*shape, 2, dtype=x.dtype)
    for each, matrix in ((jac, dense), (jac.mT, dense.T)):
        torch.testing.assert_close(
            each.solve(right), torch.linalg.solve(matrix, right.reshape(size, 2)).reshape(right.shape)
        )
    assert told in jac.explain().answers[0]


@pytest.mark.parametrize("f", [three, definite, five])
def test_gradients_go_by_nonzeros(f) -> None:
    """A solution that is differentiated is the same, and its gradient that of the dense way."""
    right, found = torch.rand(400, dtype=DOUBLE), []
    for dense in (False, True):
        x = torch.linspace(1, 2, 400, dtype=DOUBLE).requires_grad_()
        jac = jacobian(f)(x)
        solved = torch.linalg.solve(jac.to_dense(), right) if dense else jac.solve(right)
        (found_here,) = torch.autograd.grad((solved * right).sum() + (x**2).sum(), x)
        found.append((solved.detach(), found_here))
    torch.testing.assert_close(*found)


def test_singular() -> None:
    """The column that depends on others is named, of three diagonals and of more; NaN gives NaN."""
    x = torch.linspace(1, 2, 400, dtype=DOUBLE)
    edges = lambda x: torch.cat([x[:1] - x[1:2], 2 * x[1:-1] - x[2:] - x[:-2], x[-1:] - x[-2:-1]])
    for f, at in ((edges, 399), (lambda x: five(x) * (torch.arange(400) != 7), "row 7 is zero")):
        jac = jacobian(f)(x)
        with pytest.raises(torch.linalg.LinAlgError, match=f"{at}"):
            jac.solve(x)
        assert jac.slogdet().logabsdet == -torch.inf
    weight = torch.ones(400, dtype=DOUBLE).index_fill(0, torch.tensor(5), torch.nan)
    assert jacobian(lambda x: weight * three(x))(x).solve(x).isnan().all()


@pytest.mark.parametrize("f", [
    lambda x: three(x) + x[(torch.arange(400) - 1).clamp(0)],
    lambda x: three(x) + pad(x.view(-1, 4), (0, 0, 1, 0))[:-1].flip(-1).reshape(-1),
], ids=["tables", "backwards"])  # fmt: skip
def test_the_rest_goes_by_nonzeros(f) -> None:
    """Places that tables tell are listed, and those of blocks that run backwards."""
    jac = jacobian(f)(torch.linspace(1, 2, 400, dtype=DOUBLE))
    right = torch.rand(400, dtype=DOUBLE)
    torch.testing.assert_close(jac @ jac.solve(right), right)
    assert "solve: banded:" in jac.explain().answers[0]
