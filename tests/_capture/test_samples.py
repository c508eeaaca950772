"""What a sample says of the graph beneath it."""

import subprocess
import sys
import threading

import pytest
import torch

from torchjac import jacrev, vmap
from torchjac._capture.vmap_levels import levels_entered, levels_left


def test_samples_tell():
    """Inside levels that were entered a sample asks for gradients where its batch does, and nowhere else."""
    x = torch.rand(2, 3, requires_grad=True)
    seen = []

    def sample(x, y):
        ask = lambda: [(t.requires_grad, t.is_leaf) for t in (x, x.sin(), x.detach(), y)]
        seen.append(ask())
        with levels_left() as stack, levels_entered(stack):
            seen.append(ask())
            assert x.grad_fn is None
            assert y.grad_fn is None
            with pytest.raises(RuntimeError, match="inside vmap"):
                _ = x.sin().grad_fn
        seen.append(ask())
        assert x.sin().grad_fn is None
        return x

    vmap(sample)(x, torch.rand(2))
    outside = [(False, True)] * 4
    assert seen == [outside, [(True, True), (True, False), (False, True), (False, True)], outside]


def test_other_tensors_tell_as_ever():
    """Leaves, others, parameters, and asking for gradients."""
    x = torch.rand(3)
    x.requires_grad = True
    assert x.requires_grad
    assert x.is_leaf
    assert x.grad_fn is None
    assert x.sin().grad_fn.name() == "SinBackward0"
    assert torch.nn.Parameter(x.detach(), requires_grad=False).requires_grad is False
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        torch.arange(3).requires_grad = True
    for name in ("is_leaf", "grad_fn"):
        with pytest.raises(AttributeError):
            setattr(x, name, None)


def test_modes_and_subclasses_see_the_property():
    """What asks for a property is one call of it for a mode, as before."""

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(func == torch.Tensor.requires_grad.__get__)
            return func(*args, **(kwargs or {}))

    calls = []
    with Seen():
        assert torch.rand(3).requires_grad is False
    assert calls[1:] == [True]


def test_no_call_writes_to_the_class():
    """A call leaves the class as it was, and so do a nested one and one that raises."""
    before = dict(vars(torch.Tensor))

    def fails(x):
        vmap(jacrev(torch.sin))(x.repeat(2, 1))
        assert dict(vars(torch.Tensor)) == before
        raise ValueError("of the function")

    vmap(jacrev(torch.sin))(torch.rand(2, 3))
    assert dict(vars(torch.Tensor)) == before
    with pytest.raises(ValueError, match="of the function"):
        vmap(jacrev(fails))(torch.rand(2, 3))
    assert dict(vars(torch.Tensor)) == before


def test_other_threads_see_none_of_it():
    """In a thread that entered no levels a sample of vmap tells what it always does."""
    batch, seen = torch.rand(2, 3, requires_grad=True), []

    def elsewhere():
        vmap(lambda x: (seen.append(x.requires_grad), x)[1])(batch)

    def sample(x):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        seen.append(x.requires_grad)
        return x.sin()

    vmap(jacrev(sample))(batch)
    assert seen == [False, True]


def test_what_stood_there_is_asked():
    """A property that other code has put there before torchjac is imported is asked by those of torchjac."""
    program = """
import torch
own = torch.Tensor.is_leaf
torch.Tensor.is_leaf = property(lambda tensor: (own.__get__(tensor), "theirs"), own.__set__)
import torchjac
assert torch.rand(3).is_leaf == (True, "theirs")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
