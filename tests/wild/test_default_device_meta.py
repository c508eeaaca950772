"""Shapes-only calls: under torch.set_default_device("meta") programs run without numbers, and so do we."""

import pytest
import torch
import torch.nn.functional as F
from tests.forced import force
from torch import nn

from torchjac import jacobian, jacrev


@pytest.fixture(params=[True, False], ids=["structured", "dense"], autouse=True)
def way(request, monkeypatch):
    """Both ways of finding the answer."""
    force(monkeypatch, "structure" if request.param else "rows")


@pytest.fixture(autouse=True)
def meta():
    """Every tensor is made on the meta device."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def slice_write(x):
    """A write into a slice, which has to be found by calls where there are values."""
    out = torch.zeros(5)
    out[1:3] = x[:2].sin()
    out[3].mul_(x.sum())
    return out


def table_meets_table(x):
    """Two index tensors one after the other: they meet by their values, which are not there."""
    y = torch.zeros(6).index_add(0, torch.zeros(3, dtype=torch.long), x)
    return y[torch.zeros(4, dtype=torch.long)] + y.view(2, 3).t().reshape(6)[:4]


def many_pieces(x):
    """More blocks than a list of them carries."""
    return torch.stack([x[k] * x[(3 * k) % 60] for k in range(60)]).flip(0)


PROGRAMS = {
    "product": (lambda x: F.softmax(x @ torch.randn(4, 6), -1), (3, 4)),
    "stencil": (lambda x: x[1:] - x[:-1].sin(), (9,)),
    "convolution": (lambda x: F.conv2d(x, torch.randn(3, 2, 3, 3)).relu().flatten(1), (1, 2, 5, 5)),
    "index add": (lambda x: torch.zeros(5).index_add(0, torch.zeros(3, dtype=torch.long), x), (3,)),
    "slice write": (slice_write, (3,)),
    "table meets table": (table_meets_table, (3,)),
    "many pieces": (many_pieces, (60,)),
    "sort": (lambda x: x.sort()[0].cumsum(0), (4,)),
    "index": (lambda x: x[torch.tensor([0, 2])].sum(0), (3, 2)),
    "module": (lambda x: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))(x), (5, 3)),
    "batch norm": (lambda x: nn.BatchNorm1d(3)(x), (4, 3)),
    "LSTM": (lambda x: nn.LSTM(3, 4)(x)[0], (2, 1, 3)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), (1, 2, 3, 4)),
    "reshape": (lambda x: x.view(2, 6).t().reshape(3, 4), (12,)),
    "no entries": (lambda x: x.sin(), (0, 2)),
    "gradient": (lambda x: jacrev(lambda x: x.pow(3).sum())(x), (4,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_shapes_only(name):
    """The answer has the shape, the dtype and the device that a Jacobian there has."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    found = jacrev(f)(x)
    assert found.is_meta
    assert (found.shape, found.dtype) == (f(x).shape + x.shape, x.dtype)
    operator = jacobian(f)(x)
    assert operator.shape == found.shape
    assert operator.to_dense().is_meta
    assert operator.to_dense().shape == found.shape


def test_values_are_asked_for():
    """A program whose shapes depend on values cannot run there: PyTorch's own error comes through."""
    with pytest.raises(NotImplementedError, match="nonzero"):
        jacrev(lambda x: x[x > 0])(torch.randn(3))


def test_nonzeros_are_bounded():
    """What is printed tells a bound; an exact count is refused where blocks may name the same entries."""
    assert (
        jacobian(lambda x: x[1:] - x[:-1])(torch.randn(10)).nnz == 18
    )  # affine positions tell without values
    J = jacobian(lambda x: x[torch.zeros(9, dtype=torch.long)] - x[:-1])(torch.randn(10))
    assert "nnz=at most 18" in repr(J)
    with pytest.raises(RuntimeError, match="on the meta device"):
        _ = J.nnz
    with pytest.raises(RuntimeError, match="only positions with values tell"):
        J.to_sparse()


def test_solutions_have_a_shape():
    """A diagonal is solved with, without a look at its pivots; where a pattern is needed it says that there is none."""
    J = jacobian(torch.exp)(torch.randn(10))
    assert J.solve(torch.randn(10)).is_meta
    stencil = jacobian(lambda x: 4 * x + x.roll(1).sin())(torch.randn(90))
    assert stencil.kind == "sparse"
    with pytest.raises(RuntimeError, match="on the meta device"):
        stencil.solve(torch.randn(90))
