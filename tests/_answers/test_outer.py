"""Sums of blocks that are full because each output meets a sum, and what they are apart."""

import pytest
import torch

from torchjac import grad, jacobian
from torchjac._answers.outer import outer

DOUBLE = torch.float64


def neighbours(x):
    """What each unknown makes of the one before it."""
    return 4 * x - x.roll(1).sin()


def energy(x):
    """One with squares of two sums."""
    return (x**4).sum() + x[::2].sum() * x[1::2].sum() / 100 + (x[1:] * x[:-1]).sum() / 9 + x.sum() ** 2


FUNCTIONS = {
    "each by a mean": (lambda x: neighbours(x) + x**2 * x.mean(), (320,), 1),
    "a mean beside": (lambda x: neighbours(x) + x.mean(), (320,), 1),
    "a mean that each has a part in": (lambda x: neighbours(x) + (x**2).mean(), (320,), 1),
    "halves": (lambda x: torch.cat([x[200:].mean() * x[:200], x[:200].sum() + x[200:]]) + 3 * x, (401,), 2),
    "Hessian": (grad(energy), (640,), 3),
    "samples": (lambda x: neighbours(x) + x**2 * x.mean(1, keepdim=True), (5, 160), 5),
    "the last dim": (lambda x: 3 * x + x**2 * x.mean(0, keepdim=True), (160, 5), 5),
    "rows and columns": (lambda x: 5 * x + x * x.mean(0) - x.mean(1, keepdim=True) * x.sin(), (50, 60), 110),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_solutions_and_determinants(name) -> None:
    """They are those of the dense matrix, of the transpose too, and so few numbers stand between the two parts."""
    f, shape, rank = FUNCTIONS[name]
    x = torch.linspace(0.1, 1, torch.Size(shape).numel(), dtype=DOUBLE).reshape(shape)
    jac = jacobian(f)(x)
    assert jac.solved_as == "product"
    assert outer(jac.form).right.out_shape == (rank,)
    size = x.numel()
    dense = jac.to_dense().reshape(size, size)
    right = torch.rand(*shape, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for each, matrix in ((jac, dense), (jac.mT, dense.T)):
        expected = torch.linalg.solve(matrix, right.reshape(size, 2)).reshape(right.shape)
        torch.testing.assert_close(each.solve(right), expected)
        torch.testing.assert_close(each.solve(right[..., 0]), expected[..., 0])
        torch.testing.assert_close(each.lstsq(right), expected)
        torch.testing.assert_close(tuple(each.slogdet()), tuple(torch.linalg.slogdet(matrix)))


def test_a_large_one_is_not_written_out() -> None:
    """A hundred thousand unknowns, whose matrix has 10¹⁰ entries."""
    x = torch.linspace(0, 1, 100_000, dtype=DOUBLE)
    jac = jacobian(lambda x: neighbours(x) + x * x.mean())(x)
    torch.testing.assert_close(jac @ jac.solve(x), x)
    torch.testing.assert_close(jac.mT @ jac.mT.solve(x), x)
    assert "with both factors in one system" in jac.explain().answers[0]


def test_gradients() -> None:
    """Those of a solution and of a determinant are those of the dense way."""
    right = torch.rand(320, dtype=DOUBLE)
    found = []
    for dense in (False, True):
        x = torch.linspace(0.1, 1, 320, dtype=DOUBLE).requires_grad_()
        jac = jacobian(lambda x: neighbours(x) + x**2 * x.mean())(x)
        whole = jac.to_dense() if dense else jac
        solved = torch.linalg.solve(whole, right) if dense else jac.solve(right)
        logabs = (torch.linalg.slogdet(whole) if dense else jac.slogdet())[1]
        found.append(torch.autograd.grad(solved.square().sum() + logabs, x)[0])
    torch.testing.assert_close(*found)


def test_inside_vmap_and_in_half_precision() -> None:
    """Where SciPy cannot be called it is written out; half precision is solved in float32."""
    f = lambda x: 4 * x - x.roll(1) * x.mean()
    points, right = torch.rand(2, 320, dtype=DOUBLE), torch.rand(320, dtype=DOUBLE)
    solved = torch.func.vmap(lambda x: jacobian(f)(x).solve(right))(points)
    torch.testing.assert_close(solved, torch.stack([jacobian(f)(x).solve(right) for x in points]))
    jac = jacobian(f)(points[0].bfloat16())
    solved = jac.solve(torch.ones(320, dtype=torch.bfloat16))
    assert solved.dtype == torch.bfloat16
    torch.testing.assert_close(jac.to_dense().float() @ solved.float(), torch.ones(320), rtol=0.05, atol=0.05)


def test_singular() -> None:
    """One without an inverse is refused, but for rounding too; what a sum alone makes regular is solved."""
    x = torch.linspace(1, 2, 320, dtype=DOUBLE)
    for f in (lambda x: x - x.mean(), lambda x: 2 * x - x.roll(1) - x.roll(-1) + 0 * x.mean()):
        with pytest.raises(torch.linalg.LinAlgError, match="solve: the Jacobian is singular"):
            jacobian(f)(x).solve(x)
    pinned = jacobian(lambda x: 2 * x - x.roll(1) - x.roll(-1) + x.mean())(x)
    torch.testing.assert_close(pinned @ pinned.solve(x), x)


def test_what_stays_together() -> None:
    """Values of both ends, small matrices and small blocks are solved as they were."""
    weight = torch.rand(300, 300, dtype=DOUBLE) + 300 * torch.eye(300, dtype=DOUBLE)
    for f, shape, kind in (
        (lambda x: weight @ x, (300,), "dense"),
        (lambda x: 2 * x + x.mean(), (200,), "dense"),
        (lambda x: 2 * x + x * x.mean(1, keepdim=True), (500, 20), "block-diagonal"),
        (lambda x: 2 * x + x * x.cumsum(0), (300,), "dense"),
        (lambda x: 2 * x[1:] + x.mean(), (400,), "dense"),
        (lambda x: 4 * x + x.mean(), (0,), "diagonal"),
    ):
        assert jacobian(f)(torch.ones(shape, dtype=DOUBLE)).solved_as == kind
