"""Second derivatives that PyTorch's own graph gets wrong, and a rule gets right."""

import pytest
import torch

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap
from torchjac.testing import finite_differences


def test_logcumsumexp_twice():
    """Through `logcumsumexp` the Jacobian of the Jacobian equals finite differences of the first one.

    PyTorch 2.13 is wrong here, row by row too: where a cotangent is zero its graph drops what depends on it.
    """
    x = torch.tensor([1.5, 0.3, -1.0, 0.2], dtype=torch.float64)
    first = jacrev(lambda x: x.logcumsumexp(0).sin())
    torch.testing.assert_close(jacrev(first)(x), finite_differences(first, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_linear_pad_twice(mode):
    """The gradient of a padded sum does not depend on the input, though the graph of it names the input."""
    x = torch.randn(1, 2, 4, dtype=torch.float64)
    weights = torch.arange(16.0, dtype=torch.float64).reshape(1, 2, 8)
    f = lambda x: (torch.nn.functional.pad(x, (2, 2), mode=mode) * weights).sum()
    assert not jacobian(jacrev(f))(x).to_dense().any()
    assert not jacrev(jacrev(f))(x).any()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("op", ["cdist", "pdist"])
def test_distances_twice(op, p):
    """PyTorch's formulas of distances have no derivative; the rules have, for a function of one number too."""
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f = lambda x: (torch.pdist(x, p) if op == "pdist" else torch.cdist(x, 2 * x + 1, p)).sin().sum()
    found = hessian(f)(x)
    torch.testing.assert_close(found, finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(jacobian(jacrev(f))(x).to_dense(), found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}, {"weight": torch.rand(5)}]
)
def test_cross_entropy_twice(options, reduction):
    """The Hessian of cross entropy is one matrix of classes by classes for each sample, and each place of it."""
    options = {name: v.double() if isinstance(v, torch.Tensor) else v for name, v in options.items()}
    for shape in ((6, 5), (2, 5, 1, 2), (1, 5)):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(x[:, 0].numel()).reshape(x[:, 0].shape) % 5
        f = lambda x: torch.nn.functional.cross_entropy(x, labels, reduction=reduction, **options)
        J = jacobian(jacrev(f))(x)
        torch.testing.assert_close(J.to_dense(), finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)
        assert J.nnz == J.stored == 25 * labels.numel()


def test_cross_entropy_of_a_large_batch():
    """2,048 samples of 10 classes: 100 numbers for each of them, of 419 million entries."""
    x, labels = torch.randn(2048, 10, dtype=torch.float64), torch.arange(2048) % 10
    J = jacobian(jacrev(lambda x: torch.nn.functional.cross_entropy(x, labels)))(x)
    assert J.stored == 204_800
    assert not J.report.lost


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


def test_a_small_angle():
    """Near the origin `atan2` in half precision has the derivative 250; at the origin itself it is 0, as the second."""
    y, x = (torch.tensor([entry, 0.0], dtype=torch.float16) for entry in (0.002, 0.002))
    expected = torch.tensor([[250.0, 0], [0, 0]], dtype=torch.float16)
    for transform in (jacrev, jacfwd, lambda f, k: lambda *a: jacobian(f, k)(*a).to_dense()):
        torch.testing.assert_close(transform(torch.atan2, 0)(y, x), expected, rtol=2e-3, atol=0)
        torch.testing.assert_close(transform(torch.atan2, 1)(y, x), -expected, rtol=2e-3, atol=0)
    torch.testing.assert_close(
        jacrev(lambda y: torch.atan2(y, x).sum())(y), expected.diagonal(), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(vmap(jacrev(torch.atan2))(y, x), expected.diagonal(), rtol=2e-3, atol=0)
    assert not hessian(lambda y: torch.atan2(y, x).sum())(torch.zeros_like(y)).diagonal()[1]


AT, CROWDED = torch.tensor([[0, 1, 1], [1, 0, 2]]), torch.tensor([[0, 1, 0], [1, 0, 1]])
SPARSE = {
    "dense": lambda v: torch.sparse_coo_tensor(AT, v, (2, 3)).to_dense(),
    "entries of one place": lambda v: torch.sparse_coo_tensor(CROWDED, v, (2, 3)).to_dense(),
    "rows": lambda v: torch.sparse_coo_tensor(AT[:1], v[:, None] * v.new_ones(4), (2, 4)).to_dense(),
    "left factor": lambda v: torch.sparse_coo_tensor(AT, v, (2, 3)) @ torch.arange(6.0).view(3, 2).to(v),
    "product": lambda v: (
        torch.sparse_coo_tensor(AT, v, (2, 3)) * torch.sparse_coo_tensor(AT, v, (2, 3))
    ).to_dense(),
    "square": lambda v: (torch.sparse_coo_tensor(AT, v, (2, 3)) ** 2).to_dense(),
    "quotient": lambda v: (torch.sparse_coo_tensor(AT, v, (2, 3)) / v[0]).to_dense(),
    "from dense": lambda v: torch.diag(v).to_sparse().to_dense(),
    "from dense by rows": lambda v: torch.diag(v).to_sparse_csr().to_dense(),
}


@pytest.mark.parametrize("op", SPARSE.values(), ids=SPARSE)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_values_of_a_sparse_tensor_twice(op):
    """What is made of the values of a sparse tensor has second derivatives, which PyTorch loses without a word."""
    v = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    f = lambda v: (op(v) ** 2).sum()
    first = jacrev(f)
    torch.testing.assert_close(jacobian(op)(v).to_dense(), finite_differences(op, v), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(first(v), finite_differences(f, v), rtol=1e-6, atol=1e-6)
    for twice in (hessian(f), jacrev(first), jacfwd(first), lambda v: jacobian(first)(v).to_dense()):
        torch.testing.assert_close(twice(v), finite_differences(first, v), rtol=1e-6, atol=1e-6)
