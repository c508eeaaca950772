"""Tensors of a subclass that wraps others, inside a function: they have no memory of their own, and no address."""

import pytest
import torch
from torch.autograd import Function
from torch.utils._pytree import tree_map

from torchjac import jacfwd, jacobian, jacrev
from torchjac.testing import loop_jacobian


class Wrapped(torch.Tensor):
    """A tensor that holds another and does with that what it is asked to do."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=held.device)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def bare(value):
            return value.held if isinstance(value, Wrapped) else value

        result = func(*tree_map(bare, args), **tree_map(bare, kwargs or {}))
        return tree_map(lambda value: Wrapped(value) if isinstance(value, torch.Tensor) else value, result)


class Wrap(Function):
    """Wraps a tensor; its cotangent is unwrapped."""

    @staticmethod
    def forward(ctx, x):
        return Wrapped(x)

    @staticmethod
    def backward(ctx, g):
        return g.held if isinstance(g, Wrapped) else g


class Unwrap(Function):
    """Unwraps a tensor; its cotangent is wrapped."""

    @staticmethod
    def forward(ctx, x):
        return x.held.clone()

    @staticmethod
    def backward(ctx, g):
        return Wrapped(g)


MATRIX = Wrapped(torch.randn(4, 3, dtype=torch.float64))
FUNCTIONS = {
    "product": lambda x: Unwrap.apply(MATRIX @ Wrap.apply(x)),
    "pointwise": lambda x: Unwrap.apply(Wrap.apply(x).sin() * 2),
    "softmax": lambda x: Unwrap.apply(Wrap.apply(x).softmax(0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "way",
    [
        lambda f, x: jacrev(f)(x),
        lambda f, x: jacrev(f, chunk_size=2)(x),
        lambda f, x: jacfwd(f)(x),
        lambda f, x: jacobian(f)(x).to_dense(),
    ],
    ids=["jacrev", "chunks", "jacfwd", "jacobian"],
)
def test_tensors_inside(name, way):
    """Each answer is the loop's, at every call, though no address tells which memory is shared."""
    f, x = FUNCTIONS[name], torch.randn(3, dtype=torch.float64)
    for _ in range(3):
        found = way(f, x)
        found = found.held if isinstance(found, Wrapped) else found
        torch.testing.assert_close(found, loop_jacobian(f, x))
