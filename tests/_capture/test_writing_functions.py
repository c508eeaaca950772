"""Writes through views by Functions: told from all others, in whatever way their function is called."""

import pytest
import torch
from tests.ways import WAYS
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._capture import writing_functions
from torchjac.testing import loop_jacobian

D = torch.float64


class Doubled(Function):
    """Doubles in place; its gradient is clipped."""

    @staticmethod
    def forward(x):
        x.mul_(2)
        return x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(*inputs)

    @staticmethod
    def backward(ctx, g):
        return (2 * g).clamp(-0.5, 0.5)

    @staticmethod
    def vmap(info, in_dims, x):
        return Doubled.apply(x), in_dims[0]


class Normed(Doubled):
    """The same, with a gradient of norm 1, which mixes the entries."""

    @staticmethod
    def backward(ctx, g):
        return 2 * g / (g.square().sum() + 1e-6).sqrt()


def _written(function, x):
    out = x.sin() * 1.5
    function.apply(out[1:4])
    return out


WEIGHT = torch.linspace(-1, 1, 30, dtype=D).reshape(5, 6)

PROGRAMS_OF = {
    "mixed": lambda function, x: WEIGHT @ _written(function, x),
    "entrywise": lambda function, x: _written(function, x) ** 2,
    "scaled": lambda function, x: _written(function, x) * x.sum(),
    "written again": lambda function, x: _written(function, x).index_fill_(0, torch.tensor(2), 0.0).sin(),
}


@pytest.mark.parametrize("function", [Doubled, Normed])
@pytest.mark.parametrize("name", PROGRAMS_OF)
@pytest.mark.parametrize("way", WAYS)
def test_each_row_is_given_to_the_function(way, name, function) -> None:
    """Rows are what the loop gives, at several calls."""
    f = lambda x: PROGRAMS_OF[name](function, x)
    call = WAYS[way](f)
    for _ in range(3):
        x = torch.randn(6, dtype=D)
        torch.testing.assert_close(call(x), loop_jacobian(f, x))


@pytest.mark.parametrize("name", PROGRAMS_OF)
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("sparse", "compressed")])
def test_samples(way, name) -> None:
    """Inside vmap each sample has rows of its own."""
    f = lambda x: PROGRAMS_OF[name](Doubled, x)
    xs = torch.randn(3, 6, dtype=D)
    torch.testing.assert_close(vmap(WAYS[way](f))(xs), torch.stack([loop_jacobian(f, x) for x in xs]))


def test_twice() -> None:
    """A second derivative takes the rows of the first one whole, too."""
    f = lambda x: (WEIGHT @ _written(Doubled, x)).square().sum()
    x = torch.randn(6, dtype=D)
    gradient = lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0]
    torch.testing.assert_close(hessian(f)(x), loop_jacobian(gradient, x))


def test_another_write_of_the_same_graph() -> None:
    """A program of an op's write does not run for that of a Function, nor the other way round."""
    clips = False

    def f(x):
        out = x.sin()
        Doubled.apply(out[1:4]) if clips else out[1:4].mul_(2)
        return WEIGHT @ out

    call = jacrev(f)
    for clips in [False, True] * 4:  # noqa: B007  # f reads it
        x = torch.randn(6, dtype=D)
        torch.testing.assert_close(call(x), loop_jacobian(f, x))


def test_writes_of_ops_keep_their_structure() -> None:
    """A Function that writes into no view leaves the writes of ops as they are."""

    def f(x):
        out = Doubled.apply(x.sin())
        out[1:4].mul_(3)
        return out

    x = torch.randn(6, dtype=D)
    before = writing_functions.last_write()
    found = jacobian(lambda x: (lambda out: out[1:4].mul_(3) + 0 * Doubled.apply(x.cos())[0])(x.sin()))(x)
    assert writing_functions.last_write() is before
    assert "torch::autograd::CopySlices of a Function" not in str(found.report)
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


def test_the_method_that_stood_there_is_called() -> None:
    """What PyTorch makes of the tensors is what it made of them before."""
    assert FunctionCtx.mark_dirty.__wrapped__.__module__ == "torch.autograd.function"
    x = torch.randn(3, dtype=D, requires_grad=True)
    out = x.clone()
    assert Doubled.apply(out) is out
