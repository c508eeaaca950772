"""Second derivatives that PyTorch's own graph gets wrong, and a rule gets right."""

import pytest
import torch

from torchjac import hessian, jacfwd, jacobian, jacrev
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
