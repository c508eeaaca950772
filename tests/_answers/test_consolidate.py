"""Products through tables by one matrix by rows: when it is made, that it is right, and what never goes through it."""

import copy

import pytest
import torch
from tests._answers.cases import random_jacobians
from torch.func import grad

from torchjac import jacobian

EDGES = torch.randint(0, 200, (2, 600), generator=torch.Generator().manual_seed(0))


def forces(x):
    """The forces of springs between random points."""
    stretch = (x[EDGES[0]] - x[EDGES[1]]).square().sum(-1)
    return torch.zeros_like(x).index_add(0, EDGES[0], (x[EDGES[0]] - x[EDGES[1]]) * stretch[:, None])


def whole_numbers(*shape, dtype=torch.float64):
    """Small whole numbers, whose sums no order rounds."""
    return torch.randint(-3, 4, shape).to(dtype)


def example(dtype=torch.float64):
    """The Jacobian of forces, and its matrix."""
    jac = jacobian(forces)(whole_numbers(200, 3, dtype=dtype))
    return jac, jac.to_dense().reshape(600, 600)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products(dtype) -> None:
    """From the second product on there is a matrix, for both sides; the products are the same."""
    jac, dense = example(dtype)
    v, several = whole_numbers(200, 3, dtype=dtype), whole_numbers(200, 3, 4, dtype=dtype)
    for number in range(3):
        assert bool(jac.explain().answers) == (number > 1)
        torch.testing.assert_close((jac @ v).flatten(), dense @ v.flatten())
    torch.testing.assert_close((v @ jac).flatten(), v.flatten() @ dense)
    torch.testing.assert_close((jac.mT @ v).flatten(), dense.T @ v.flatten())
    torch.testing.assert_close(jac.matmat(several).reshape(600, 4), dense @ several.reshape(600, 4))
    assert "products: by one matrix" in str(jac.explain())
    assert "products: by one matrix" in str(jac.mT.explain())
    torch.testing.assert_close((copy.deepcopy(jac) @ v).flatten(), dense @ v.flatten())


def test_random_blocks() -> None:
    """Whatever blocks, all products of one Jacobian agree."""
    for jac, dense in random_jacobians(100):
        v = torch.randn(jac.in_shape, dtype=torch.float64)
        expected = torch.tensordot(dense, v, v.dim())
        for _ in range(3):
            torch.testing.assert_close(jac @ v, expected)


def test_where_derivatives_are_recorded() -> None:
    """Products with vectors or values that have gradients, and inside transforms, go through the blocks."""
    jac, dense = example()
    v = torch.randn(200, 3, dtype=torch.float64)
    for _ in range(2):
        jac @ v
    x = torch.randn(200, 3, dtype=torch.float64)
    leaf = v.clone().requires_grad_()
    (jac @ leaf).sum().backward()
    torch.testing.assert_close(leaf.grad.flatten(), dense.sum(0))
    pushed = torch.func.jvp(lambda v: jac @ v, (v,), (x,))[1]
    torch.testing.assert_close(pushed.flatten(), dense @ x.flatten())
    torch.testing.assert_close(
        torch.func.vmap(lambda v: jac @ v)(torch.stack([v, x]))[1].flatten(), dense @ x.flatten()
    )
    energy = lambda x: ((jacobian(forces)(x) @ v) ** 2).sum()
    leaf = x.clone().requires_grad_()
    J = jacobian(forces)(leaf)
    for _ in range(3):
        total = ((J @ v) ** 2).sum()
    torch.testing.assert_close(torch.autograd.grad(total, leaf)[0], grad(energy)(x))


def test_affine_blocks_stay_blocks() -> None:
    """Shifted diagonals multiply as they are; so does a table that names far more than it holds."""
    chain = jacobian(lambda x: x[1:] * x[:-1])(torch.rand(50))
    table = torch.arange(0, 60, 2)
    wide = jacobian(lambda x: x[table] * x.sum())(torch.rand(60))
    for jac in (chain, wide):
        for _ in range(3):
            jac @ torch.rand(jac.in_shape)
        assert not jac.explain().answers


def test_what_a_gram_matrix_needed_serves_products() -> None:
    """The values in order that JᵀJ was made of are the matrix of the next product, the first one."""
    jac, dense = example()
    gram = jac.gram()
    v = torch.randn(200, 3, dtype=torch.float64)
    torch.testing.assert_close((jac.mT @ v).flatten(), dense.T @ v.flatten())
    assert "made at product 1" in str(jac.explain())
    torch.testing.assert_close(gram.to_dense().reshape(600, 600), dense.T @ dense)


def test_an_iterative_solver_multiplies_by_the_matrix() -> None:
    """SciPy's operator is the matrix itself where there are tables, also of the transpose."""
    jac, dense = example()
    v = torch.randn(600, dtype=torch.float64).numpy()
    torch.testing.assert_close(
        torch.from_numpy(jac.mT.as_linear_operator() @ v), dense.T @ torch.from_numpy(v)
    )
    torch.testing.assert_close(torch.from_numpy(jac.as_linear_operator() @ v), dense @ torch.from_numpy(v))
    torch.testing.assert_close(
        torch.from_numpy(jac.as_linear_operator().rmatvec(v)), dense.T @ torch.from_numpy(v)
    )
    assert "made at product 1" in str(jac.explain())
