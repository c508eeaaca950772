"""Cotangents that are missing: None for a Function that asks for None, zeros for every other."""

import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from torchjac import jacfwd, jacobian, jacrev, vmap
from torchjac.testing import loop_jacobian

D = torch.float64

#: Which cotangents a backward was given, call by call
GIVEN: list[tuple[bool, bool]] = []


class SineAndRoot(Function):
    """sin x and √x, whose slope at 0 is infinite."""

    generate_vmap_rule = True
    none = True

    @staticmethod
    def forward(x):
        return x.sin(), x.sqrt()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(not SineAndRoot.none)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, sine, root):
        GIVEN.append((sine is not None, root is not None))
        (x,) = ctx.saved_tensors
        found = torch.zeros_like(x) if sine is None else sine * x.cos()
        return found if root is None else found + root / (2 * x.sqrt())


class Sorted(Function):
    """Sorted values and their indices, of which there is no cotangent."""

    @staticmethod
    def forward(ctx, x):
        values, order = x.sort()
        ctx.mark_non_differentiable(order)
        ctx.save_for_backward(order)
        ctx.set_materialize_grads(False)
        return values, order

    @staticmethod
    def backward(ctx, g, of_order):
        assert of_order is None
        (order,) = ctx.saved_tensors
        return torch.zeros_like(g).index_add(0, order, g)


@pytest.fixture(autouse=True)
def _told():
    """What was given, anew for each test."""
    SineAndRoot.none = True
    GIVEN.clear()


@pytest.mark.parametrize(
    "way",
    [
        lambda f, x: jacrev(f)(x),
        lambda f, x: jacrev(f, chunk_size=1)(x),
        lambda f, x: jacfwd(f)(x),
        lambda f, x: jacobian(f)(x).to_dense(),
        lambda f, x: jacobian(f, mode="forward")(x).to_dense(),
        lambda f, x: vmap(jacrev(f))(x[None])[0],
    ],
    ids=["jacrev", "chunks", "jacfwd", "jacobian", "forward", "vmap"],
)
def test_none_where_a_function_asks_for_it(way):
    """No zeros, which the infinite slope of an output that nothing was made of would turn into NaN."""
    x = torch.tensor([0.0, 1.0], dtype=D)
    f = lambda x: SineAndRoot.apply(x)[0] * 2
    expected = torch.diag(2 * x.cos())
    torch.testing.assert_close(loop_jacobian(f, x), expected)
    GIVEN.clear()
    for _ in range(3):
        torch.testing.assert_close(way(f, x), expected)
    assert set(GIVEN) == {(True, False)}


def test_zeros_elsewhere():
    """A Function that does not ask gets zeros, and so NaN in the loop as here."""
    SineAndRoot.none = False
    x = torch.tensor([0.0, 1.0], dtype=D)
    assert jacrev(lambda x: SineAndRoot.apply(x)[0])(x).isnan().any()
    assert set(GIVEN) == {(True, True)}


def test_an_output_without_a_derivative():
    """The indices beside sorted values have no cotangent, and none is made up."""
    x = torch.tensor([0.3, -1.0, 0.2], dtype=D)
    f = lambda x: Sorted.apply(x)[0].sin() * Sorted.apply(x)[1]
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


def test_the_method_is_replaced_once():
    """What stands in PyTorch's place calls PyTorch's, and takes a context that is no node."""
    assert FunctionCtx.set_materialize_grads.__wrapped__.__module__ == "torch.autograd.function"
    context = FunctionCtx()
    context.set_materialize_grads(False)
    assert context.materialize_grads is False
