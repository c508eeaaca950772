"""jacfwd: torch.func.jacfwd's calling convention, its own dtype, and every composition."""

from functools import partial
from unittest import mock

import pytest
import torch
from tests.functions import Marked
from torch import nn
from torch.func import grad
from torch.utils import _pytree as pytree

from torchjac import jacfwd, jacobian, jacrev, jvp, vjp, vmap
from torchjac.testing import loop_jacobian

pytestmark = pytest.mark.usefixtures("way")

WEIGHT = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def widen(x):
    """Few inputs, many outputs, through rules, seeds and a scan."""
    return (WEIGHT @ x).tanh().cumsum(0).softmax(0) * x.sum()


def test_the_loop(same):
    """The answer is the row-by-row loop's and torch.func.jacfwd's."""
    x = torch.randn(2)
    same(jacfwd(widen)(x), loop_jacobian(widen, x))
    same(jacfwd(widen)(x), torch.func.jacfwd(widen)(x))


def test_trees_argnums_and_aux(same):
    """Trees of inputs and outputs, tuples of argnums, aux by position, keyword arguments."""

    def f(x, other, y, scale=1.0):
        return {"a": x["u"] * y.sum() * scale, "b": [y.sin()]}, other

    args = ({"u": torch.randn(3), "v": torch.randn(2, 2)}, "aux", torch.randn(4))
    for argnums in (0, 2, (2, 0), (-1,)):
        found, aux = jacfwd(f, argnums, True)(*args, scale=2.0)
        expected, _ = jacrev(f, argnums, has_aux=True)(*args, scale=2.0)
        same(found, expected)
        assert aux == "aux"


@pytest.mark.parametrize(
    "f",
    [lambda x: x.sort(0), lambda x: (x > 0, x.sin()), lambda x: {"at": x.argmax()}, lambda x: x.int()],
    ids=["sort", "comparison", "position", "int32"],
)
def test_outputs_that_are_integers(f):
    """Integers and truths do not change: zeros of their dtype, alone, of samples and compiled, as torch.func.jacfwd."""
    x, batch, theirs = torch.randn(3), torch.randn(4, 3), torch.func.jacfwd(f)
    close = partial(torch.testing.assert_close, rtol=0, atol=0)
    close(jacfwd(f)(x), theirs(x))
    close(vmap(jacfwd(f))(batch), vmap(theirs)(batch))
    close(torch.compile(jacfwd(f), backend="eager", fullgraph=True)(x), theirs(x))


@pytest.mark.parametrize("inner", [jacfwd, jacrev])
@pytest.mark.parametrize("outer", [jacfwd, jacrev])
def test_second_derivatives(inner, outer):
    """Any nesting of both directions is the Hessian of each output."""
    x = torch.randn(2)
    expected = loop_jacobian(torch.func.jacrev(widen), x)
    torch.testing.assert_close(outer(inner(widen))(x), expected)


def test_compositions():
    """Under vmap, grad, vjp and jvp it is what torch.func.jacrev is there."""
    x, batch = torch.randn(2), torch.randn(5, 2)
    reference = torch.func.jacrev(widen)
    close = torch.testing.assert_close
    close(vmap(jacfwd(widen))(batch), vmap(reference)(batch))
    loss = lambda jac: lambda x: jac(x).square().sum()
    close(grad(loss(jacfwd(widen)))(x), grad(loss(reference))(x))
    close(jvp(jacfwd(widen), (x,), (x,))[1], jvp(reference, (x,), (x,))[1])
    value, pull = vjp(jacfwd(widen), x)
    close(pull(value), vjp(reference, x)[1](value))
    close(vmap(grad(loss(jacfwd(widen))))(batch), vmap(grad(loss(reference)))(batch))
    close(
        jacfwd(lambda x: vmap(widen)(x).sum(0))(batch),
        torch.func.jacrev(lambda x: vmap(widen)(x).sum(0))(batch),
    )


def test_differentiable_outside():
    """The answer is differentiable in inputs and captured parameters, and records nothing where none asks."""
    x, weight = torch.randn(2, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    f = lambda x, w: jacfwd(lambda x: (w @ x).tanh().cumsum(0))(x)
    assert torch.autograd.gradcheck(f, (x, weight))
    assert torch.autograd.gradgradcheck(f, (x, weight))
    assert not jacfwd(torch.sin)(torch.randn(3)).requires_grad


@pytest.mark.parametrize("f", [
    lambda x: torch.stack([x[0] * 0.5, x[1]]), lambda x: x * 2, lambda x: torch.zeros(3, dtype=torch.float32),
])  # fmt: skip
def test_float32(f):
    """A function of float32 gives a float32 Jacobian; torch 2.13's own gives float64 for the first."""
    x = torch.randn(3, dtype=torch.float32)
    found = jacfwd(f)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.func.jacrev(f)(x))


def test_mixed_dtypes():
    """The dtype is the output's, and so is the precision."""
    x = torch.rand(3, dtype=torch.float32)
    found = jacfwd(lambda x: x.double().exp())(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.diag(x.double().exp()), rtol=1e-14, atol=0)
    assert jacfwd(lambda x: x.float())(torch.randn(2)).dtype == torch.float32
    assert jacobian(lambda x: x.double().exp(), mode="forward")(x).to_dense().dtype == torch.float32


@pytest.mark.parametrize("shape, out", [((0,), 2), ((), 1), ((1,), 1), ((2,), 0)])
def test_sizes(shape, out):
    """Sizes 0 and 1, at either end."""
    f = lambda x: x.sum().expand(out) * 2
    x = torch.randn(shape)
    assert jacfwd(f)(x).shape == (out, *shape)
    torch.testing.assert_close(jacfwd(f)(x), torch.full((out, *shape), 2.0))


def test_modules_and_programs():
    """What stops torch.func works as in jacrev: BatchNorm in training mode, writes into the argument, dropout."""
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh())
    x = torch.randn(4, 2)
    torch.testing.assert_close(jacfwd(net)(x), jacrev(net)(x))

    def writes(x):
        x.mul_(2)
        return x[:1] ** 2

    torch.testing.assert_close(jacfwd(writes)(x), jacrev(writes)(x))
    for randomness in ("error", "different", "same"):
        dropped = jacfwd(nn.Dropout(0.5), randomness=randomness)(torch.ones(50))
        assert set(dropped.diagonal().tolist()) == {0.0, 2.0}


def test_once_differentiable_functions_are_refused_twice():
    """A second derivative through such a backward is refused and not taken for zero."""
    x = torch.randn(3, requires_grad=True)
    found = jacfwd(Marked.apply)(x)
    torch.testing.assert_close(found, torch.diag(2 * x))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.sum().backward()


def test_hooks_are_run():
    """Hooks are PyTorch's engine's, and it runs them."""

    def f(x):
        y = x.sin()
        y.register_hook(lambda cotangent: 2 * cotangent)
        return y * 3

    x = torch.zeros(2)
    torch.testing.assert_close(jacfwd(f)(x), 6 * torch.eye(2))


def test_errors():
    """Errors name jacfwd and what was given."""
    with pytest.raises(ValueError, match=r"^jacfwd: randomness must be one of .* got 'never'"):
        jacfwd(torch.sin, randomness="never")
    with pytest.raises(TypeError, match=r"^jacfwd: func must be callable"):
        jacfwd(3)
    with pytest.raises(RuntimeError, match=r"^jacfwd: argnums 2 is out of range"):
        jacfwd(torch.sin, 2)(torch.zeros(2))
    with pytest.raises(NotImplementedError, match=r"^jacfwd: complex"):
        jacfwd(torch.sin)(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"^jacobian: mode must be one of .* got 'both'"):
        jacobian(torch.sin, mode="both")


def test_trees_are_torch_funcs(same):
    """The nesting is torch.func.jacfwd's."""
    f = lambda x, y: (x.sin() * y, {"a": y.sum()})
    x, y = torch.randn(3), torch.randn(3)
    found = jacfwd(f, argnums=(0, 1))(x, y)
    expected = torch.func.jacfwd(f, argnums=(0, 1))(x, y)
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    same(found, expected)


def test_another_order_where_it_takes_far_less(same):
    """Convolutions are not called on a tangent for each pixel: the answer is that of the loop, and no node climbs."""
    weight = torch.randn(2, 1, 3, 3)
    f = lambda x: nn.functional.conv2d(x.sin(), weight, padding=1).tanh()
    x = torch.randn(1, 1, 20, 21)
    with mock.patch("torchjac._transforms.dense.accumulate_forward") as never:
        found = jacfwd(f)(x)
    never.assert_not_called()
    same(found, loop_jacobian(f, x))
