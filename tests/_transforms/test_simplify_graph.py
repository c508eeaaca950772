"""clean: a recorded graph without what changes nothing or is there twice, as right as before."""

import pytest
import torch

from torchjac import compile, hessian, jacobian, jacrev
from torchjac._transforms import compile as compiling
from torchjac._transforms.op_recording import record_ops
from torchjac.testing import loop_jacobian


def ops(function, *tensors):
    """The names of the ops recorded."""
    recording = record_ops(lambda given: function(*given), list(tensors))
    return [node.target.__name__ for node in recording.graph.graph.nodes if node.op == "call_function"]


X = torch.rand(3, 4)


def test_nothing_left():
    """Aliases, and what gives a tensor the shape it has, go; what gives it another stays."""
    assert ops(lambda x: [x.detach().sin().view(3, 4).expand(3, 4)], X) == ["sin.default"]
    assert ops(lambda x: [x.sin().view(12)], X) == ["sin.default", "reshape.default"]
    assert ops(lambda x: [x[:1].sin().expand(3, 4)], X)[-1] == "expand.default"
    assert ops(lambda x: [x.permute(0, 1)[:3].as_strided((3, 4), (4, 1)).sin()], X) == ["sin.default"]
    assert ops(lambda x: [x[1:].as_strided((3, 4), (4, 1)).sin()], X)[1] == "as_strided.default"
    assert ops(lambda x: [x.sin().view(12).view(2, 6).view(3, 4)], X) == ["sin.default", "reshape.default"]


def test_copies():
    """A copy goes that nobody writes into; one that is laid down otherwise, or conjugated, stays."""
    assert ops(lambda x: [x.clone().sin()], X) == ["sin.default"]
    assert ops(lambda x: [x.t().contiguous().sin()], X) == ["t.default", "clone.default", "sin.default"]

    def written(x):
        made = x.clone()
        made[0].mul_(2)
        return [made]

    assert "clone.default" in ops(written, X)
    pairs = lambda x: [torch.view_as_real(torch.complex(x, x).conj().resolve_conj())]
    assert torch.equal(record_ops(lambda given: pairs(*given), [X]).graph(X)[0], pairs(X)[0])
    given = torch.rand(3)
    assert record_ops(lambda given: [given[0].clone()], [given]).graph(given)[0] is not given


def test_equal_ops():
    """What does the same to the same is done once; numbers of two kinds are two, and so are random draws."""
    assert ops(lambda x: [x.sin() + x.sin()], X) == ["sin.default", "add.Tensor"]
    assert ops(lambda x: [x * 2 + x * 2.0], X).count("mul.Tensor") == 2
    assert ops(lambda x: [torch.rand(3) + torch.rand(3)], X).count("rand.default") == 2


def test_writes_that_nobody_reads():
    """Writes into memory of its own that no output needs go, with what was written; those into an input stay."""

    def function(x):
        lost = torch.zeros(3, 4)
        lost[1:].copy_(x[1:].exp())
        kept = torch.zeros(3, 4)
        kept[1:].copy_(x[1:].sin())
        kept[0].add_(torch.ones(4))
        return [kept]

    assert "exp.default" not in ops(function, X)
    assert ops(function, X).count("copy_.default") == 1
    recording = record_ops(lambda given: function(*given), [X])
    assert torch.equal(recording.graph(X)[0], function(X)[0])
    assert "mul_.Tensor" in ops(lambda x: [x.mul_(2).sum() * 0 + 1, torch.ones(2)][1:], X)


def test_writes():
    """What is written into is kept apart from what is equal to it before or after."""

    def function(x):
        first, second = x.sin(), x.sin()
        first.add_(1)
        return [first + second, x.sin()]

    recording = record_ops(lambda given: function(*given), [X])
    found = recording.graph(X)
    assert torch.allclose(found[0], 2 * X.sin() + 1)
    assert torch.equal(found[1], X.sin())


def test_outputs_are_apart():
    """Outputs that would share memory do not: the caller may write into one."""
    recording = record_ops(lambda given: [given[0].sin().view(12), given[0].sin().t()], [X])
    first, second = recording.graph(X)
    first.zero_()
    assert torch.equal(second, X.sin().t())


def test_layouts_that_tracers_tell_otherwise():
    """The result of a sort of a transpose lies otherwise in memory than it does without values."""
    func = lambda x: x.sin().sort(0).values.clamp(-0.5, 0.5)
    x = torch.randn(3, 3).t()
    want = loop_jacobian(func, x)
    assert torch.equal(compile(jacrev(func), backend="eager")(x), want)
    assert torch.equal(compile(jacobian(func), backend="eager")(x).to_dense(), want)


@pytest.mark.parametrize("steps", [20, 40])
def test_ops_of_a_recurrence(steps, monkeypatch):
    """What is compiled for a scalar recurrence grows with its steps, not with their square."""
    counts = []
    compile_graph = compiling.compile_graph

    def counted(graph, example, backend):
        counts.append(len(graph.graph.nodes))
        return compile_graph(graph, example, backend)

    monkeypatch.setattr(compiling, "compile_graph", counted)

    def func(x):
        state, states = torch.zeros(()), []
        for k in range(steps):
            state = torch.tanh(state + x[k])
            states.append(state)
        return torch.stack(states)

    x = torch.randn(steps)
    assert torch.allclose(compile(jacrev(func), backend="eager")(x), loop_jacobian(func, x))
    assert counts[0] <= 12 * steps


def test_structure_below_a_hessian():
    """The inner walk of a Hessian keeps its small blocks apart: made one, they would name entries that are zero."""

    def func(x):
        y = x.sin()
        return y[0] * y[5] + (y[2] * y[7]) ** 2 + y[3:5].prod() + (y[8] * y[1]).sin()

    x = torch.rand(30)
    found = compile(hessian(func, layout=torch.sparse_csr), backend="eager")(x)
    assert found.values().numel() == 16
    assert torch.allclose(found.to_dense(), hessian(func)(x))
