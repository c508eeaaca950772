"""torch.utils.checkpoint and vmap: inside it Jacobians are right where PyTorch has none; elsewhere it is refused."""

import pytest
import torch
from tests.forced import force
from tests.versions import NEWEST
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchjac import jacobian, jacrev, vmap
from torchjac.testing import loop_jacobian

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def block(reentrant):
    """A checkpointed block of layers."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return lambda x: checkpoint(net, x, use_reentrant=reentrant)


@pytest.fixture(params=[True, False], ids=["structured", "dense"], autouse=True)
def way(request, monkeypatch):
    """Both ways of finding the answer."""
    force(monkeypatch, "structure" if request.param else "rows")
    return "structured" if request.param else "dense"


@pytest.mark.parametrize("transform", [jacrev, jacobian], ids=["jacrev", "jacobian"])
def test_inside_vmap(transform):
    """A vmap over Jacobians of a checkpointed block gives each sample's, which torch.func refuses."""
    f = block(False)
    with pytest.raises(RuntimeError, match="saved tensor hooks"):
        vmap(torch.func.jacrev(f))(X)
    dense = lambda J: J if transform is jacrev else J.to_dense()
    expected = torch.stack([loop_jacobian(f, x) for x in X])
    torch.testing.assert_close(vmap(lambda x: dense(transform(f)(x)))(X), expected)


@pytest.mark.parametrize("transform", [jacrev, jacobian], ids=["jacrev", "jacobian"])
def test_reentrant_inside_vmap(transform):
    """The reentrant kind raises what torch.func raises."""
    f = block(True)
    with pytest.raises(RuntimeError) as theirs:
        vmap(torch.func.jacrev(f))(X)
    with pytest.raises(RuntimeError) as ours:
        vmap(lambda x: transform(f)(x))(X)
    assert str(ours.value) == str(theirs.value)
    assert any(reason in str(ours.value) for reason in ("setup_context", "does not have vmap support"))


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("transform", [jacrev, jacobian], ids=["jacrev", "jacobian"])
def test_vmap_inside(transform, reentrant, way):
    """The Jacobian of a vmap of a checkpointed block raises what autograd raises for the loop.

    Only dense rows under a vmap of their own give the recomputation a level to run at: they are right.
    """
    f = vmap(block(reentrant))
    with pytest.raises(RuntimeError) as theirs:
        loop_jacobian(f, X)
    if (
        way == "dense" and transform is jacrev and not reentrant and NEWEST
    ):  # PyTorch 2.9 refuses the call of f
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        torch.testing.assert_close(transform(f)(X), loop_jacobian(net, X))
        return
    with pytest.raises(RuntimeError) as ours:
        transform(f)(X)
    assert str(ours.value) == str(theirs.value)


def test_vmap_inside_a_checkpoint():
    """The other way round works: a vmap that is checkpointed as a whole."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    f = lambda x: checkpoint(vmap(net), x, use_reentrant=False)
    expected = loop_jacobian(f, X)
    torch.testing.assert_close(jacrev(f)(X), expected)
    torch.testing.assert_close(jacobian(f)(X).to_dense(), expected)
