"""Graphs that are recognised: the same graph as reading gives, and no other one is taken for it."""

import gc

import pytest
import torch
from torch.nn.functional import leaky_relu

from torchjac import jacrev, program_cache
from torchjac._accumulate.planned import PROGRAMS
from torchjac._capture import match, recognise
from torchjac._capture.deletion import MOST_NESTED, is_anchor
from torchjac._capture.graph import read_graph
from torchjac.testing import loop_jacobian

D = torch.float64


@pytest.fixture(autouse=True, params=["node by node", "as one function"])
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare node by node, and as one function from the first call on."""
    if request.param == "as one function":
        monkeypatch.setattr(match, "WRITING", 0)


def known(f, x, calls: int = 4):
    """Whether the graph of a function is recognised after a few calls."""
    for _ in range(calls):
        jacrev(f)(x)
    return graph(f, x).known is not None


def graph(f, x):
    """The graph of a function as a call of ours finds it."""
    start = x.detach().requires_grad_().clone()
    outputs = f(start)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    return recognise.graph_between(outputs, [start.grad_fn])


WEIGHT = torch.rand(3, 3, dtype=D, requires_grad=True)
FUNCTIONS = {
    "pointwise": lambda x: x.sin() * x,
    "several outputs": lambda x: (x.sin(), x, x.unbind()[1]),
    "an output without a graph": lambda x: (x.sin(), torch.ones(2)),
    "a parameter": lambda x: WEIGHT @ x,
    "what is made of a parameter": lambda x: torch.nn.functional.linear(x, WEIGHT.sin().clone()),
    "a layer of samples": lambda x: (
        (x.repeat(2).view(2, 3).unsqueeze(1).view(2, 3) @ WEIGHT).view(2, 1, 3).squeeze(1)
    ),
    "a long chain": lambda x: chain(x, 3 * MOST_NESTED),
}


def chain(x, n: int):
    """A chain of so many nodes."""
    for _ in range(n):
        x = x.sin()
    return x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_recognised_is_what_is_read(name) -> None:
    """The nodes, their edges, the ends, what asks for gradients outside, and the anchors are those of reading."""
    f, x = FUNCTIONS[name], torch.rand(3, dtype=D)
    assert known(f, x)
    start = (x + 1).requires_grad_().clone()
    outputs = f(start)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    found = recognise.graph_between(outputs, [start.grad_fn])
    anchors = [is_anchor(fn) for fn in found.nodes]
    read = read_graph(outputs, [start.grad_fn])
    assert found.known is not None
    assert (found.nodes, found.edges, found.ends, found.foreign) == (
        read.nodes,
        read.edges,
        read.ends,
        read.foreign,
    )
    assert anchors == [is_anchor(fn) for fn in read.nodes]


def ones(*shape: int):
    """A constant in double precision."""
    return torch.ones(shape, dtype=D)


OTHERS = {
    "another input": (lambda x: x.sin() * x.cos(), lambda x: x.sin() * x.sin().cos()),
    "another output of a node": (lambda x: x.unbind()[0] * 2, lambda x: x.unbind()[1] * 2),
    "an output that is another output of a node": (lambda x: x.unbind()[0], lambda x: x.unbind()[1]),
    "outputs in another order": (lambda x: (x.sin(), x.cos()), lambda x: (x.cos(), x.sin())),
    "a parameter for the input": (lambda x: x.sin() * WEIGHT[0].clone().sin(), lambda x: x.sin() * x.clone().sin()),
    "the input for a parameter": (lambda x: x.sin() * x.clone().sin(), lambda x: x.sin() * WEIGHT[0].clone().sin()),
    "a parameter that asks for no gradient": (lambda x: x * WEIGHT[0], lambda x: x * WEIGHT[0].detach()),
    "a longer chain": (lambda x: chain(x, 3), lambda x: chain(x, 4)),
    "a negative zero": (lambda x: leaky_relu(x - 0.5, 0.0), lambda x: leaky_relu(x - 0.5, -0.0)),
    "an infinite order": (lambda x: x.norm(float("inf")), lambda x: x.norm(2.0)),
    "the shape of a constant": (
        lambda x: (x * torch.ones(1, 3)).exp().sum(), lambda x: (x * torch.ones(2, 3)).exp().sum(),
    ),
    "a product that is written": (
        lambda x: (x.float().sin() * x.sin()).exp().half().double(),
        lambda x: x.float().sin().mul_(x.sin()).exp().half().double(),
    ),
    "the shape of a view": (lambda x: x.view(3, 1).tanh(), lambda x: x.view(1, 3).tanh()),
    "the shape of a factor": (lambda x: x[None] @ ones(3, 2), lambda x: x[None] @ ones(3, 4)),
    "the shapes of both factors": (
        lambda x: x.repeat(4).view(4, 3) @ ones(3, 2), lambda x: x.repeat(4).view(2, 6) @ ones(6, 2),
    ),
    "how often it is expanded": (lambda x: x.expand(2, 3) @ WEIGHT, lambda x: x.expand(4, 3) @ WEIGHT),
    "the dim that is squeezed": (
        lambda x: x.view(3, 1, 1).squeeze(1).exp(), lambda x: x.view(1, 3, 1).squeeze(0).exp(),
    ),
    "where a sequence is cut": (
        lambda x: torch.cat([x[:1].sin(), x[1:]]).exp().sum(), lambda x: torch.cat([x[:2].sin(), x[2:]]).exp().sum(),
    ),
    "the batch of a product": (
        lambda x: torch.bmm(x.repeat(2).view(1, 2, 3), x.view(1, 3, 1)).exp().sum(),
        lambda x: torch.bmm(x.repeat(2).view(2, 1, 3), x.view(1, 3, 1).expand(2, 3, 1)).exp().sum(),
    ),
    "a dim of a diagonal": (
        lambda x: torch.stack([x, x.sin()]).diagonal().exp().sum(),
        lambda x: torch.stack([x, x.sin()], 1).diagonal().exp().sum(),
    ),
    "a dtype": (lambda x: x.float().sin(), lambda x: x.half().float().sin().double()),
}  # fmt: skip


EXACT = {"rtol": 1e-9, "atol": 1e-9}
LOW = {"rtol": 1e-2, "atol": 1e-2}
TOLERANCE = {"a dtype": LOW, "a product that is written": LOW}


@pytest.mark.parametrize("name", OTHERS)
def test_another_graph_is_not_taken_for_it(name) -> None:
    """A graph that differs in one thing is not recognised, and has its own Jacobian."""
    first, second = OTHERS[name]
    x = torch.rand(3, dtype=D)
    assert known(first, x)
    assert graph(first, x).known is not graph(second, x).known
    for f in (second, first, second):
        found, value = jacrev(f)(x), f(x)
        for k in range(len(value) if isinstance(value, tuple) else 1):
            one = (lambda x, f=f, k=k: f(x)[k]) if isinstance(value, tuple) else f
            answer = found[k] if isinstance(value, tuple) else found
            torch.testing.assert_close(answer, loop_jacobian(one, x), **TOLERANCE.get(name, EXACT))


def test_a_gradient_asked_for_outside_of_a_recognised_graph() -> None:
    """The answer has a graph where a parameter asks for gradients, and none where the same one does not."""
    x = torch.rand(3, dtype=D)
    weight = torch.rand(3, dtype=D, requires_grad=True)
    f = lambda x: x.sin() * weight
    assert known(f, x)
    assert jacrev(f)(x).requires_grad
    weight.requires_grad_(False)
    assert not jacrev(f)(x).requires_grad
    weight.requires_grad_(True)
    (found,) = torch.autograd.grad(jacrev(f)(x).sum(), weight)
    torch.testing.assert_close(found, x.cos())


def test_a_hook_on_a_recognised_graph() -> None:
    """A hook that is registered later is run."""
    x = torch.rand(3, dtype=D)
    factor: list[float] = []

    def f(x):
        y = x.sin()
        if factor:
            y.register_hook(lambda grad: grad * factor[0])
        return y * 1.0

    assert known(f, x)
    factor.append(3.0)
    torch.testing.assert_close(jacrev(f)(x), 3 * x.cos().diag())


def test_many_that_begin_alike() -> None:
    """Of functions that begin alike each is right, recognised or not."""
    x = torch.rand(3, dtype=D)
    lengths = range(1, recognise.MOST_ALIKE + 4)
    for n in [*lengths, *reversed(lengths), *lengths]:
        known(lambda x, n=n: chain(x, n), x)
        torch.testing.assert_close(
            jacrev(lambda x, n=n: chain(x, n))(x), loop_jacobian(lambda x, n=n: chain(x, n), x)
        )


def test_a_comparison_is_made_once_for_a_kind_of_node() -> None:
    """A longer graph of the same ops compiles nothing."""
    x = torch.rand(3, dtype=D)
    assert known(lambda x: chain(x, 3), x)
    before = match._matcher.cache_info().misses
    assert known(lambda x: chain(x, 30), x)
    assert match._matcher.cache_info().misses == before


def test_what_is_forgotten_is_not_recognised() -> None:
    """A graph is recognised for as long as a program has it in its key."""
    x = torch.rand(3, dtype=D)
    program_cache(clear=True)
    gc.collect()
    before = set(recognise._known)  # of answers that other tests left
    assert known(torch.sin, x)
    program_cache(clear=True)
    gc.collect()
    assert graph(torch.sin, x).known is None
    assert set(recognise._known) == before
    assert not PROGRAMS.entries


def test_a_nested_tensor_is_not_taken_for_a_dense_one() -> None:
    """A graph of the same ops on nested tensors is told from it, as it is at the first call."""
    x = torch.rand(4, 2, dtype=D)

    def f(x, nested: bool):
        parts = torch.nested.as_nested_tensor([x[:1], x[1:]], layout=torch.jagged) if nested else x
        return (parts * 2).unbind()[0] if nested else (parts * 2)[0]

    assert known(lambda x: f(x, False), x)
    torch.testing.assert_close(jacrev(lambda x: f(x, True))(x), loop_jacobian(lambda x: f(x, True), x))


@pytest.mark.parametrize("writing", [0, 200])
def test_two_calls_of_a_function_are_not_one(writing, monkeypatch) -> None:
    """A Function called twice is not one whose output is used twice: its backward may clip a gradient."""
    monkeypatch.setattr("torchjac._capture.match.WRITING", writing)

    class Clipped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g / (1 + g.norm())

    x = torch.rand(3, dtype=D)
    twice = lambda x: Clipped.apply(x) + Clipped.apply(x).flip(0)
    once = lambda x: (lambda y: y + y.flip(0))(Clipped.apply(x))
    assert known(twice, x)
    assert graph(once, x).known is None
    assert known(once, x)
    assert graph(twice, x).known is not graph(once, x).known
    for f in (twice, once):
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
