"""hessian: torch.func's trees, the loop's values."""

import pytest
import torch
from torch.utils import _pytree as pytree

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import loop_jacobian

SCALARS = {
    "cubes": (lambda x: x.pow(3).sum(), (4,)),
    "chain": (lambda x: (x[1:] * x[:-1].sin()).sum(), (5,)),
    "full": (lambda x: x.softmax(0).log().sum() * x.prod(), (3,)),
    "grid": (lambda x: (x[1:] - x[:-1]).pow(4).sum() + x.exp().mean(), (3, 2)),
    "linear": (lambda x: 2 * x.sum(), (3,)),
    "constant": (lambda x: torch.ones(()), (3,)),
    "one": (lambda x: x.sin().squeeze(), (1,)),
    "scalar": (lambda x: x**3, ()),
    "nothing": (lambda x: x.sum() ** 2, (0,)),
    "vector": (lambda x: x[1:] ** 2 * x[0], (4,)),
    "matrix": (lambda x: (x @ x.T)[:, :1].tanh(), (2, 3)),
}


@pytest.mark.parametrize("name", SCALARS)
def test_hessian(name) -> None:
    """The Hessian is that of the row-by-row loop over jacrev, in torch.func's shape."""
    f, shape = SCALARS[name]
    x = torch.randn(shape)
    found = hessian(f)(x)
    torch.testing.assert_close(found, loop_jacobian(jacrev(f), x))
    if x.numel():  # torch.func.hessian fails on inputs of size 0 (torch 2.13)
        expected = torch.func.hessian(f)(x)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected)


def test_trees(same) -> None:
    """Outputs, inputs and inputs again are nested as torch.func nests them, for argnums of either kind."""
    x, y = torch.randn(2), {"a": torch.randn(3), "b": torch.randn(())}
    f = lambda x, y: {"p": (x.sum() * y["a"].sin()).sum(), "q": (x.prod() * y["b"],)}
    for argnums in (0, 1, (0,), (0, 1), (1, 0)):
        same(hessian(f, argnums)(x, y), torch.func.hessian(f, argnums)(x, y))
    same(hessian(f, -1)(x, y), hessian(f, 1)(x, y))  # torch.func.hessian gives zeros for -1 (torch 2.13)


def test_aux() -> None:
    """Auxiliary output is handed through from inside both Jacobians."""
    x = torch.randn(3)
    found, aux = hessian(lambda x: (x.pow(3).sum(), {"x": x * 2, "name": "aux"}), has_aux=True)(x)
    torch.testing.assert_close(found, torch.diag(6 * x))
    torch.testing.assert_close(aux["x"], 2 * x)
    assert not aux["x"].requires_grad
    assert aux["name"] == "aux"


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_chunks_and_keywords(chunk_size) -> None:
    """Chunks change nothing, and keyword arguments are passed on."""
    x = torch.randn(4)
    found = hessian(lambda x, *, power: x.cumprod(0).pow(power).sum(), chunk_size=chunk_size)(x, power=3)
    torch.testing.assert_close(found, torch.func.hessian(lambda x: x.cumprod(0).pow(3).sum())(x))


def test_composition() -> None:
    """Hessians of a batch under vmap; a third derivative by nesting; gradients of an entry."""
    f = lambda x: (x[1:] ** 2 * x[:-1]).sum()
    x = torch.randn(3, 4)
    torch.testing.assert_close(vmap(hessian(f))(x), vmap(torch.func.hessian(f))(x))
    torch.testing.assert_close(jacrev(hessian(f))(x[0]), torch.func.jacrev(torch.func.hessian(f))(x[0]))
    assert torch.autograd.gradcheck(hessian(f), (x[0].clone().requires_grad_(),))


def test_structure() -> None:
    """The Hessian of a sum of local terms holds its diagonals, and products with it cost no more."""
    n = 100_000
    f = lambda x: ((x[1:] - x[:-1]) ** 4).sum()
    operator = jacobian(jacrev(f))(torch.randn(n))
    assert operator.stored <= 4 * n
    assert operator.nnz == 3 * n - 2
    v = torch.randn(n)
    torch.testing.assert_close(operator @ v, v @ operator)


def test_leaves_keep_their_dtypes() -> None:
    """Each leaf has the dtype of the input it is last differentiated by."""
    x, y = torch.randn(2, dtype=torch.float32), torch.randn(3)
    found = hessian(lambda x, y: x.sum() * y.prod(), (0, 1))(x, y)
    assert [leaf.dtype for leaf in pytree.tree_leaves(found)] == [torch.float32, torch.float64] * 2


def test_errors() -> None:
    """What is no function, and what is not differentiable, is refused."""
    with pytest.raises(TypeError, match="hessian: func must be callable"):
        hessian(3)
    with pytest.raises(ValueError, match="hessian: chunk_size"):
        hessian(torch.sum, chunk_size=0)
    with pytest.raises(RuntimeError, match="floating-point"):
        hessian(torch.sum)(torch.arange(3))
