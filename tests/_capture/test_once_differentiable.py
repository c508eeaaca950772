"""Functions marked once_differentiable: found between outputs and inputs, and nowhere else."""

import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from torchjac._capture.capture import capture
from torchjac._capture.once_differentiable import Once, once_pairs


class Marked(Function):
    """Doubles; its backward is marked."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g * 2


class Unmarked(Function):
    """Doubles; its backward is not marked."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def _pairs(f, count):
    return once_pairs(capture(lambda tensors: (list(f(*tensors)), None), [torch.randn(3)] * count).tape)


def test_pairs():
    """Only the pairs that have such a Function between them are named."""
    found = _pairs(
        lambda x, y: (Marked.apply(x.sin()) * y, y.cos(), Unmarked.apply(x), Marked.apply(y) + x), 2
    )
    assert found == {(0, 0): "Marked", (3, 1): "Marked"}


def test_none():
    """Without any there is nothing to find."""
    assert _pairs(lambda x: (Unmarked.apply(x).sin(),), 1) == {}
    assert _pairs(lambda x: (Marked.apply(torch.ones(3, requires_grad=True)) * x,), 1) == {}


def test_once():
    """The value comes through, a derivative of it is refused by name."""
    x = torch.randn(3, requires_grad=True)
    value = Once.apply("Marked", torch.ones(2), x)
    assert torch.equal(value, torch.ones(2))
    with pytest.raises(RuntimeError, match="once_differentiable: Marked"):
        torch.autograd.grad(value.sum(), x)
    with pytest.raises(RuntimeError, match="once_differentiable: Marked"):
        torch.func.jvp(lambda x: Once.apply("Marked", x * 2, x), (torch.ones(3),), (torch.ones(3),))
