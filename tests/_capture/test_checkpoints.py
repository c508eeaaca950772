"""Checkpointed blocks are run again once for a walk, as PyTorch's engine runs them once for a backward."""

import pytest
import torch
from tests.forced import force
from torch import nn
from torch.utils import checkpoint as checkpoints
from torch.utils.checkpoint import checkpoint

from torchjac import jacobian, jacrev
from torchjac._capture import checkpoints as ours
from torchjac.testing import loop_jacobian

#: Without it, each saved tensor that is read runs its block again: slower, and right.
shared = pytest.mark.skipif(ours._Group is None, reason="this PyTorch has no GraphExecGroup")


class Counted(nn.Module):
    """A block of so many layers that counts how often it runs."""

    def __init__(self, layers, size=5):
        super().__init__()
        torch.manual_seed(0)
        each = [nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.LayerNorm(size)) for _ in range(layers)]
        self.layers = nn.Sequential(*each).double().requires_grad_(False)
        self.runs = 0

    def forward(self, x):
        """All layers, one after another."""
        self.runs += 1
        return self.layers(x)


def structured(f, *args):
    """The Jacobian by the structured walk."""
    return jacobian(f)(*args).to_dense()


def agree(f, x, block, runs):
    """The Jacobian is the loop's, and the block ran so many times, the first included."""
    block.runs = 0
    found = structured(f, x)
    assert block.runs == runs
    torch.testing.assert_close(found, loop_jacobian(f, x))


@shared
@pytest.mark.parametrize("layers", [1, 10])
def test_one_block(layers):
    """However deep a block is, it runs twice: once forward, once for all that the walk reads."""
    block = Counted(layers)
    agree(lambda x: checkpoint(block, x, use_reentrant=False), torch.randn(3, 5).double(), block, 2)


@shared
def test_blocks_in_a_row():
    """Each of many blocks runs twice, and no more than a few are kept at once."""
    block, most = Counted(2), 0
    unpack = ours._unpack

    def watched(*args):
        nonlocal most
        found = unpack(*args)
        most = max(most, len(ours._kept.get() or {}))
        return found

    def f(x):
        for _ in range(10):
            x = checkpoint(block, x, use_reentrant=False)
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "_unpack", watched)
        agree(f, torch.randn(2, 5).double(), block, 20)
    assert most == ours.MOST_KEPT


@shared
def test_nested_blocks():
    """A block inside a block runs as often as in one backward: forward, for the outer one, and for its own."""
    block = Counted(3)
    inner = lambda x: checkpoint(block, x.sin(), use_reentrant=False) * x
    f = lambda x: checkpoint(inner, x, use_reentrant=False)
    x = torch.randn(2, 5).double().requires_grad_()
    torch.autograd.grad(f(x).sum(), x)
    agree(f, x.detach(), block, block.runs)


@shared
def test_dense_rows():
    """Where PyTorch's engine takes the rows it runs a block once for a batch of them."""
    block = Counted(4)
    f = lambda x: checkpoint(block, x, use_reentrant=False)
    x = torch.randn(1, 5).double()
    with pytest.MonkeyPatch.context() as patch:
        force(patch, "rows")
        found = jacrev(f)(x)
    assert block.runs == 2
    torch.testing.assert_close(found, loop_jacobian(f, x))


@shared
def test_random_numbers():
    """A block with dropout is run again on the same numbers."""
    drop = nn.Dropout(0.5)
    block = Counted(2)

    def f(x):
        torch.manual_seed(3)
        return checkpoint(lambda x: drop(block(x)) * drop(x), x, use_reentrant=False)

    agree(f, torch.randn(3, 5).double(), block, 2)


def test_a_block_that_differentiates():
    """A block that asks for gradients of a block inside it, twice over one graph, is still right.

    Two such calls may not share one run of the inner block, so nothing is shared there.
    """

    def outer(x):
        y = checkpoint(lambda x: x.sin().exp(), x, use_reentrant=False)
        grads = [torch.autograd.grad(y.sum(), x, create_graph=True)[0] for _ in range(2)]
        return grads[0] * grads[1] + y

    f = lambda x: checkpoint(outer, x, use_reentrant=False)
    x = torch.randn(4).double()
    reference = lambda x: (x.cos() * x.sin().exp()) ** 2 + x.sin().exp()
    torch.testing.assert_close(structured(f, x), loop_jacobian(reference, x))


def test_under_itself():
    """The Hessian of a checkpointed block is that of the block."""
    block = Counted(2)
    f = lambda x: checkpoint(block, x, use_reentrant=False).square().sum()
    plain = lambda x: block(x).square().sum()
    x = torch.randn(2, 5).double()
    twice = lambda f: structured(jacrev(f), x)
    torch.testing.assert_close(twice(f), twice(plain))


def test_nothing_is_replaced():
    """A call, and an error in one, replaces nothing, and nothing is kept."""
    before = checkpoints._checkpoint_hook

    def broken(x):
        checkpoint(torch.sin, x, use_reentrant=False)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        jacrev(broken)(torch.ones(2))
    assert checkpoints._checkpoint_hook is before
    assert ours._kept.get() is None
