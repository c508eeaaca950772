"""Products twice: no second derivative divides by an entry."""

import pytest
import torch

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap
from torchjac.testing import finite_differences

ENTRIES = torch.tensor([[0.7, 0.0, -1.3], [2.0, 0.5, 0.0], [0.0, 1.5, 0.0]], dtype=torch.float64)
PRODUCTS = {
    "prod": lambda x: x.prod().sin(),
    "prod along": lambda x: x.prod(1).sin(),
    "prod keeping": lambda x: x.prod(0, keepdim=True).sin(),
    "cumprod": lambda x: x.cumprod(0).sin(),
    "cumprod of one": lambda x: x.reshape(-1)[0].cumprod(0),
}


@pytest.mark.parametrize("op", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize(
    "x", [ENTRIES, ENTRIES + 0.25, ENTRIES[:1], ENTRIES[:, :1]], ids=["zeros", "none", "row", "column"]
)
def test_products_twice(op, x):
    """Second derivatives of products, where entries are zero too: by reverse, forward over reverse, and batched."""
    f = lambda x: op(x).sum()
    expected = finite_differences(jacrev(f), x)
    torch.testing.assert_close(hessian(f)(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(jacfwd(jacrev(f))(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(jacobian(jacrev(f))(x).to_dense(), expected, rtol=1e-6, atol=1e-6)
    by_structure = jacrev(lambda x: jacobian(f)(x).to_dense())
    torch.testing.assert_close(by_structure(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(vmap(hessian(f))(torch.stack([x, x]))[1], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", [torch.prod, lambda x: x.prod(0), lambda x: x.cumprod(0)[-1]])
def test_products_twice_in_half_precision(op):
    """No second derivative divides by an entry: 4000 / 0.03 is infinite in half precision."""
    x = torch.tensor([0.03, 1, 1, 1], dtype=torch.float16)
    expected = torch.tensor([0.0, 4000, 4000, 4000], dtype=torch.float16)
    for twice in (hessian, lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacrev(f))):
        assert torch.equal(twice(lambda x: 4000 * op(x))(x)[0], expected)


@pytest.mark.parametrize("name", ["scatter_reduce", "index_reduce"])
@pytest.mark.parametrize("source", [[3.0, 0.0, 1.2], [3.0, 0.0, 0.0], [0.0, 2.0, 1.2]])
def test_products_by_index(name, source):
    """What is multiplied into a tensor has right derivatives at zeros, of either, for rows and by structure."""
    index, source = torch.tensor([0, 1, 1]), torch.tensor(source, dtype=torch.float64)
    for x in (torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)):
        for k, at in enumerate((x, source)):
            f = lambda z: getattr((z, x)[k], name)(0, index, (source, z)[k], "prod")
            expected = finite_differences(f, at)
            for found in (jacrev(f)(at), jacfwd(f)(at), jacobian(f)(at).to_dense()):
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(
                jacrev(lambda z: f(z).sum())(at), expected.sum(0), rtol=1e-6, atol=1e-6
            )


def test_products_of_nothing_twice():
    """No entry, no derivative."""
    assert hessian(lambda x: x.prod() + x.cumprod(0).sum())(torch.zeros(0)).shape == (0, 0)


def test_products_of_one_entry_twice():
    """A 0-dim tensor is its own product, recorded by structure too."""
    for f in (torch.prod, lambda x: x.prod(0), lambda x: x.cumprod(0)):
        assert jacrev(lambda x: jacobian(f)(x).to_dense() * x)(torch.tensor(3.0)) == 1
