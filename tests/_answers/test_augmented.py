"""Systems with a product of two factors that is fuller than they are."""

import pytest
import torch

from torchjac import Jacobian, jacobian
from torchjac._answers.forms import ProductOfFactors

DOUBLE = torch.float64


def update(size, rank=3, seed=0):
    """A cubic spring for each unknown beside what all of them do to a few numbers, and these to all."""
    make = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, rank, dtype=DOUBLE, generator=make) / size**0.5 for _ in range(2))
    x = torch.rand(size, dtype=DOUBLE, generator=make)
    return lambda x, left=left: 2 * x + x**3 + left @ (right.T @ x).sin(), x, left


def apart(above, below):
    """The product of two Jacobians, not multiplied though it is small."""
    return Jacobian(ProductOfFactors((above.form, below.form)), above.report)


def product(size, rank, seed=0):
    """The Jacobian as the product of the two: of what comes of all numbers between, and of these."""
    _, x, left = update(size, rank, seed)
    make = torch.Generator().manual_seed(seed + 1)
    right = torch.randn(size, rank, dtype=DOUBLE, generator=make) / size**0.5
    below = jacobian(lambda x: torch.cat([2 * x + x**3, right.T @ x]))(x)
    above = jacobian(lambda y: y[:size] + left @ y[size:].sin())(torch.ones(size + rank, dtype=DOUBLE))
    return apart(above, below)


@pytest.mark.parametrize(("size", "rank"), [(90, 1), (90, 2), (91, 1), (91, 2)])
def test_solutions_and_determinants(size, rank) -> None:
    """They are those of the dense matrix, of the transpose too, for sizes that change the determinant's sign."""
    jac = product(size, rank)
    assert jac.kind == jac.solved_as == "product"
    dense = jac.to_dense()
    right = torch.rand(size, 2, dtype=DOUBLE)
    torch.testing.assert_close(jac.solve(right), torch.linalg.solve(dense, right))
    torch.testing.assert_close(jac.solve(right[:, 0]), torch.linalg.solve(dense, right[:, 0]))
    torch.testing.assert_close(jac.mT.solve(right), torch.linalg.solve(dense.T, right))
    torch.testing.assert_close(jac.lstsq(right), torch.linalg.solve(dense, right))
    for found, each in ((jac.slogdet(), dense), (jac.mT.slogdet(), dense.T)):
        torch.testing.assert_close(tuple(found), tuple(torch.linalg.slogdet(each)))
    assert "with both factors in one system, arrow" in jac.explain().answers[0]


def test_the_product_is_not_formed() -> None:
    """A low-rank term beside a diagonal one, of one function: ten thousand unknowns, whose product has 10⁸ entries."""
    f, x, _ = update(10_000)
    jac = jacobian(f)(x)
    right = torch.rand(10_000, dtype=DOUBLE)
    solved, other = jac.solve(right), jac.mT.solve(right)
    torch.testing.assert_close(jac @ solved, right)
    torch.testing.assert_close(jac.mT @ other, right)
    assert jac.slogdet().sign == 1
    assert isinstance(jac.form, ProductOfFactors)
    assert "blocks" not in vars(jac.form)
    assert "blocks" not in vars(jac.mT.form)


def test_gradients() -> None:
    """Those of a solution and a determinant by the argument and by a captured tensor are those of the dense way."""
    f, start, left = update(1500)
    right = torch.rand(1500, dtype=DOUBLE)
    found = []
    for solve in (lambda jac: jac.solve(right), lambda jac: torch.linalg.solve(jac.to_dense(), right)):
        x, weight = start.clone().requires_grad_(), left.clone().requires_grad_()
        jac = jacobian(lambda x, weight=weight: f(x, weight))(x)
        found.append(torch.autograd.grad(solve(jac).square().sum(), [x, weight]))
    assert jac.solved_as == "product"
    torch.testing.assert_close(*found)


def test_inside_vmap_and_in_half_precision() -> None:
    """Where SciPy cannot be called it is written out; half precision is solved in float32, by the factors too."""
    _, start, _ = update(70, 1)
    right = torch.rand(70, dtype=DOUBLE)

    def step(x):
        below = jacobian(lambda x: torch.cat([2 * x + x**3, x.sum(0, keepdim=True)]))(x)
        above = jacobian(lambda y: y[:70] + 0.01 * y[70:].sin())(torch.ones(71, dtype=DOUBLE))
        return apart(above, below).solve(right)

    points = torch.stack([start, start + 1])
    torch.testing.assert_close(torch.func.vmap(step)(points), torch.stack([step(x) for x in points]))
    jac = product(90, 2).to(torch.bfloat16)
    solved = jac.solve(torch.ones(90, dtype=torch.bfloat16))
    torch.testing.assert_close(jac.to_dense().float() @ solved.float(), torch.ones(90), rtol=0.05, atol=0.05)
    assert solved.dtype == torch.bfloat16


def test_singular() -> None:
    """A product without an inverse is refused, and has no determinant."""
    x = torch.ones(90, dtype=DOUBLE)
    below = jacobian(lambda x: torch.cat([x * torch.arange(90), x.sum(0, keepdim=True)]))(x)
    above = jacobian(lambda y: y[:90])(torch.ones(91, dtype=DOUBLE))
    full = jacobian(lambda y: y[:90] + 0 * y[90:])(torch.ones(91, dtype=DOUBLE))
    for jac in (apart(above, below), apart(full, below)):
        with pytest.raises(torch.linalg.LinAlgError, match="solve: the Jacobian is singular"):
            jac.solve(x)
        assert jac.slogdet().sign == 0
