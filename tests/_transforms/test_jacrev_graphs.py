"""The graph of the answer: there exactly when torch.func's is, and none held when nothing asks."""

import gc
import weakref
from typing import ClassVar

import pytest
import torch
from tests.versions import NEWEST
from torch import nn

from torchjac import explain, functional_call, hessian, jacfwd, jacobian, jacrev, value_and_jacobian, vmap

pytestmark = pytest.mark.usefixtures("way")


def _leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


W = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
C = torch.randn(3, dtype=torch.float64)

#: name → function of x (3,), which may capture W
FUNCTIONS = {
    "sin": torch.sin,
    "linear": lambda x: 2 * x[1:],
    "square": lambda x: x * x,
    "tanh of linear in a parameter": lambda x: (W @ x).tanh(),
    "linear in a parameter": lambda x: W @ x,
    "parameter beside": lambda x: x + W[0],
    "parameter detached": lambda x: (W.detach() @ x).sin(),
    "scalar": lambda x: (x.sin() * C).sum(),
    "softmax": lambda x: x.softmax(0),
    "outer": lambda x: x[:, None] * x.sin(),
    "write": lambda x: torch.zeros(4, dtype=x.dtype).index_put((torch.arange(3),), x**3),
    "constant": lambda x: C * 1,
    "parameter itself": lambda x: W,
    "input itself": lambda x: x,
}


@pytest.mark.parametrize("outer", ["grad", "no_grad", "inference"])
@pytest.mark.parametrize("needs", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_requires_grad_as_torch(name, needs, outer):
    """The answer requires grad exactly when that of torch.func does."""
    x = torch.randn(3).requires_grad_(needs)
    with {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[outer]():
        ours, theirs = jacrev(FUNCTIONS[name])(x), torch.func.jacrev(FUNCTIONS[name])(x)
    assert ours.requires_grad == theirs.requires_grad
    if outer == "inference" and not NEWEST:  # where that of PyTorch 2.9 gives zeros
        theirs = torch.func.jacrev(FUNCTIONS[name])(x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_as_torch(name):
    """Gradients through the answer, to inputs and captured parameters, are torch.func's."""
    grads = []
    for transform in (jacrev, torch.func.jacrev):
        x = torch.linspace(-1, 1, 3).requires_grad_()
        result = transform(FUNCTIONS[name])(x)
        loss = (result * torch.linspace(1, 2, result.numel()).view(result.shape)).square().sum()
        grads.append(
            torch.autograd.grad(loss, [x, W], allow_unused=True, materialize_grads=True)
            if loss.requires_grad
            else (torch.zeros(3), torch.zeros(3, 3))
        )
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradgrad_of_the_answer():
    """The answer can be differentiated more than once."""
    x = torch.rand(3, requires_grad=True)
    assert torch.autograd.gradcheck(jacrev(lambda x: x.sin() * x.prod() + (W @ x).exp()), (x,))
    assert torch.autograd.gradgradcheck(jacrev(lambda x: x.sin() * x.prod() + (W @ x).exp()), (x,))


def test_training_on_a_jacobian():
    """A penalty on the Jacobian of a module trains its parameters, and only through .grad of those."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    jacrev(net)(x).square().sum().backward()
    ours = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    torch.func.jacrev(net)(x).square().sum().backward()
    theirs = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_no_grad_of_parameters_is_touched():
    """Computing a Jacobian never writes to anybody's .grad."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3, requires_grad=True)
    jacrev(net)(x)
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None


def test_inputs_that_share_a_history():
    """The graph reaches through inputs that were themselves computed."""
    base = torch.rand(3, requires_grad=True)
    grads = []
    for transform in (jacrev, torch.func.jacrev):
        result = transform(lambda a, b: (a * b).sin() * a, argnums=(0, 1))(base.exp(), base * 2)
        grads.append(torch.autograd.grad(sum(r.square().sum() for r in result), base)[0])
    torch.testing.assert_close(*grads)


def test_other_arguments_that_require_grad():
    """An argument that is not differentiated is a captured tensor: gradients of the answer reach it."""
    x, y = torch.randn(3), _leaf(3)
    jacrev(lambda x, y: (x * y).sin())(x, y).sum().backward()
    expected = torch.autograd.grad((y * (x * y).cos()).sum(), y)[0]
    torch.testing.assert_close(y.grad, expected)


def test_aux_as_torch():
    """Aux keeps its graph where something outside requires grad and the mode is on; else it is detached."""
    for needs in (True, False):
        for mode in (torch.enable_grad, torch.no_grad):
            x = torch.randn(3).requires_grad_(needs)
            f = lambda x: (x.sin(), (x.cos(), x * 2))
            with mode():
                _, ours = jacrev(f, has_aux=True)(x)
                _, theirs = torch.func.jacrev(f, has_aux=True)(x)
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b)
                assert a.requires_grad == b.requires_grad, (needs, mode)
            if needs and mode is torch.enable_grad:
                (grad,) = torch.autograd.grad(ours[0].sum(), x)
                torch.testing.assert_close(grad, -x.sin())


class Remember(torch.autograd.Function):
    """Square; keeps weak references to what it saves."""

    saved: ClassVar[list] = []

    @staticmethod
    def forward(x):
        return x * x, x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])
        Remember.saved.append(weakref.ref(output[1]))

    @staticmethod
    def backward(ctx, grad, _):
        return 2 * ctx.saved_tensors[0] * grad


KEEPS = {
    "plain": lambda f: jacrev(f),
    "aux": lambda f: jacrev(lambda x: (f(x), x.sin() * 2), has_aux=True),
    "twice": lambda f: jacrev(lambda x: jacrev(f)(x).sum(0)),
    "chunks": lambda f: jacrev(f, chunk_size=2),
    "opaque op": lambda f: jacrev(lambda x: torch.linalg.inv(f(x)[:, None] * x + torch.eye(3))),
    "softmax": lambda f: jacrev(lambda x: f(x).softmax(0)),
}


@pytest.mark.parametrize("case", KEEPS)
def test_nothing_is_held(case):
    """When nothing outside requires grad, the answer has no graph and what the ops saved is freed at once."""
    Remember.saved.clear()
    watched = []

    def f(x):
        y = x.exp()
        watched.append(weakref.ref(y))
        return Remember.apply(y)[0].sin()

    gc.collect()
    gc.disable()
    try:
        result = KEEPS[case](f)(torch.randn(3))
        alive = [ref() for ref in watched + Remember.saved if ref() is not None]
    finally:
        gc.enable()
    assert Remember.saved
    assert not alive
    for tensor in torch.utils._pytree.tree_leaves(result):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


def test_nothing_is_held_under_no_grad():
    """Under an outer no_grad nothing is held even where inputs and parameters require grad."""
    watched = []

    def f(x):
        y = (W @ x).exp()
        watched.append(weakref.ref(y))
        return y.sin()

    with torch.no_grad():
        result = jacrev(f)(_leaf(3))
    gc.collect()
    assert result.grad_fn is None
    assert watched[0]() is None


def test_graph_dies_with_the_answer():
    """Where the answer is differentiable, the graph lives as long as the answer does, and no longer."""
    watched = []

    def f(x):
        y = x.exp()
        watched.append(weakref.ref(y))
        return y.sin() * y

    x = _leaf(3)
    result = jacrev(f)(x)
    assert watched[0]() is not None or result.grad_fn is not None
    torch.autograd.grad(result.sum(), x, retain_graph=True)
    del result
    gc.collect()
    assert watched[0]() is None


def test_result_is_no_view_of_the_input():
    """Writing into the answer changes neither the input nor captured tensors."""
    x, w = torch.randn(3), torch.randn(3, 3)
    before = w.clone()
    for f in (lambda x: w @ x, lambda x: x * w[0], lambda x: (w * x).sum(), lambda x: x[0] * w[0], torch.sum):
        jacrev(f)(x).fill_(7.0)
        torch.testing.assert_close(w, before)
        torch.testing.assert_close(jacrev(f)(x), torch.func.jacrev(f)(x))


def test_answers_are_writable():
    """Every tensor of the answer can be written into, and the next answer is not changed by that."""
    x, y = torch.randn(3), torch.randn(3)
    f = lambda x, y: (x.sum(), x + y, torch.zeros(2), x, y.expand(2, 3))
    for k in range(10):
        leaf = torch.utils._pytree.tree_leaves(jacrev(f, argnums=(0, 1))(x, y))[k]
        expected = torch.utils._pytree.tree_leaves(torch.func.jacrev(f, argnums=(0, 1))(x, y))[k]
        torch.testing.assert_close(leaf, expected)
        leaf += 1
        torch.testing.assert_close(leaf, expected + 1)


def test_functional_call_parameters_outside():
    """Parameters given as a dict are inputs like others: differentiable, and independent of the module's."""
    net = nn.Linear(3, 2)
    params = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    x = torch.randn(4, 3)
    result = jacrev(lambda p: functional_call(net, p, (x,)).tanh())(params)
    result["weight"].square().sum().backward()
    assert all(p.grad is not None for p in params.values())
    assert all(p.grad is None for p in net.parameters())


def test_grad_mode_is_restored():
    """Grad mode after the call is what it was before, also inside the function's own changes."""

    def f(x):
        torch.set_grad_enabled(True)
        return x.sin()

    with torch.no_grad():
        jacrev(f)(torch.randn(3))
        assert not torch.is_grad_enabled()
        vmap(jacrev(torch.sin))(torch.randn(2, 3))
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian, jacobian, value_and_jacobian, explain])
@pytest.mark.parametrize("n", [3, 300])
def test_nothing_waits_for_the_collector(transform, n):
    """What the function captured is free when the answer is: no cycle holds it until Python looks for some."""
    x, kept = torch.randn(n), []
    for _ in range(3):
        weight = torch.randn(n)
        kept.append(weakref.ref(weight))
        gc.disable()
        try:
            transform(lambda x, weight=weight: (x * weight).sin().cumsum(0).sum(0, keepdim=True))(x)
            del weight
            assert kept[-1]() is None
        finally:
            gc.enable()
