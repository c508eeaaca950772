"""What a sample says of the graph beneath it."""

import threading

import pytest
import torch

from torchjac import jacrev, vmap
from torchjac._capture.samples import samples_tell
from torchjac._capture.vmap_levels import levels_entered, levels_left


def test_samples_tell():
    """Inside levels that were entered a sample asks for gradients where its batch does, and nowhere else."""
    x = torch.rand(2, 3, requires_grad=True)
    seen = []

    def sample(x, y):
        ask = lambda: [(t.requires_grad, t.is_leaf) for t in (x, x.sin(), x.detach(), y)]
        seen.append(ask())
        with levels_left() as stack, samples_tell(), levels_entered(stack):
            with samples_tell():
                pass
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
    with samples_tell():
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
    with samples_tell(), Seen():
        assert torch.rand(3).requires_grad is False
    assert calls[1:] == [True]


def test_nothing_stays():
    """After a call, a nested one and one that raises, the class is as it was."""
    names = ("requires_grad", "is_leaf", "grad_fn")

    def fails(x):
        assert isinstance(vars(torch.Tensor)["is_leaf"], property)
        vmap(jacrev(torch.sin))(x.repeat(2, 1))
        raise ValueError("of the function")

    vmap(jacrev(torch.sin))(torch.rand(2, 3))
    assert not set(names) & set(vars(torch.Tensor))
    with pytest.raises(ValueError, match="of the function"):
        vmap(jacrev(fails))(torch.rand(2, 3))
    assert not set(names) & set(vars(torch.Tensor))


def test_what_stood_there_is_put_back(monkeypatch):
    """A property that other code has put there is there again."""
    theirs = property(lambda tensor: False)
    monkeypatch.setattr(torch.Tensor, "is_leaf", theirs)
    vmap(jacrev(torch.sin))(torch.rand(2, 3))
    assert vars(torch.Tensor)["is_leaf"] is theirs


def test_other_threads_see_none_of_it():
    """In a thread that entered no levels a sample of vmap tells what it always does."""
    batch = torch.rand(2, 3, requires_grad=True)
    seen = []
    with samples_tell():
        thread = threading.Thread(target=lambda: vmap(lambda x: (seen.append(x.requires_grad), x)[1])(batch))
        thread.start()
        thread.join()
    assert seen == [False]
