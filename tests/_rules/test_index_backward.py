"""Ops by index whose formula PyTorch refuses: whichever way they go, they have the Jacobian of a twin that it takes."""

from collections.abc import Callable

import pytest
import torch
from tests._rules.cases import Sampler
from torch import Tensor

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import loop_jacobian

s = Sampler()
F = torch.nn.functional
index = torch.tensor([[2, 0], [0, 1]])
x, y = s(3, 4), s.spread(3, 4)
reduced = [
    (lambda x, y, how=how, both=both: x.scatter_reduce(0, index, y, how, include_self=both))
    for how in ("sum", "mean", "prod", "amax", "amin")
    for both in (True, False)
]
OPS = [lambda x, y: x.scatter(0, index, y), lambda x, y: x.scatter_add(1, index, y), *reduced]


def agree(f: Callable, twin: Callable, *args: Tensor, argnum: int) -> None:
    """A function has the derivatives that a twin has, which PyTorch can differentiate."""
    expected = loop_jacobian(twin, *args, argnum=argnum)
    torch.testing.assert_close(jacrev(f, argnum)(*args), expected)
    for mode in ("reverse", "forward"):
        torch.testing.assert_close(jacobian(f, argnum, mode=mode)(*args).to_dense(), expected)
    batch = tuple(torch.stack([arg, arg.roll(1)]) for arg in args)
    torch.testing.assert_close(vmap(jacrev(f, argnum))(*batch)[0], expected)
    loss, twin_loss = (lambda *args, g=g: g(*args).sin().sum() for g in (f, twin))
    expected = loop_jacobian(jacrev(twin_loss, argnum), *args, argnum=argnum)
    torch.testing.assert_close(hessian(loss, argnum)(*args), expected)


@pytest.mark.parametrize("argnum", [0, 1])
@pytest.mark.parametrize("op", OPS)
def test_source_larger_than_index(op: Callable, argnum: int) -> None:
    """Entries of a source that the index does not name have no derivative, those of its twin are cut off."""
    agree(op, lambda x, y: op(x, y[:2, :2]), x, y, argnum=argnum)


@pytest.mark.parametrize("padding", [None, 1])
@pytest.mark.parametrize("ids", [torch.tensor([0, 1, 1]), torch.tensor([[2], [1]]), torch.tensor(2)])
def test_sparse_embedding(ids: Tensor, padding: int | None) -> None:
    """An embedding whose gradient PyTorch makes sparse has the Jacobian of one that does not."""
    f, twin = (lambda w, kind=kind: F.embedding(ids, w, padding, sparse=kind) for kind in (True, False))
    agree(f, twin, s(3, 2), argnum=0)


def test_sparse_embedding_at_scale() -> None:
    """A block with an index for each row, whatever the gradient would be; of no rows it is empty."""
    none = lambda w: F.embedding(torch.zeros(0, dtype=torch.int64), w, sparse=True)
    assert jacrev(none)(s(3, 2)).shape == (0, 2, 3, 2)
    ids = torch.arange(0, 100_000, 3)
    J = jacobian(lambda w: F.embedding(ids, w, sparse=True))(torch.zeros(100_000, 4))
    assert (J.nnz, J.stored) == (4 * len(ids), len(ids))
