"""What a sample says of the graph beneath it."""

import pytest
import torch

from torchjac import jacrev, vmap
from torchjac._capture.samples import let_samples_tell
from torchjac._capture.vmap_levels import levels_entered, levels_left


@pytest.fixture(autouse=True)
def told():
    """As after the first capture beneath vmap."""
    let_samples_tell()


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


def test_the_class_is_written_once():
    """Calls do not write to `Tensor`, which would empty Python's caches of attributes."""
    before = {name: vars(torch.Tensor)[name] for name in ("requires_grad", "is_leaf", "grad_fn")}
    vmap(jacrev(torch.sin))(torch.rand(2, 3))
    assert all(vars(torch.Tensor)[name] is found for name, found in before.items())
