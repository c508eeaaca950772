"""The tape: which nodes stand on it, in which order, and what is read off them."""

import pytest
import torch
from torch.autograd import Function

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap
from torchjac._capture.graph import read_graph
from torchjac._capture.read_tape import tape_of
from torchjac._capture.tape import Meta
from torchjac.testing import loop_jacobian


def _recorded(f, *inputs):
    entries = [tensor.detach().requires_grad_().clone() for tensor in inputs]
    starts = [entry.grad_fn for entry in entries]
    outputs = f(*entries)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return tape_of(read_graph(outputs, starts))


def _names(tape):
    return [node.name for node in tape.nodes]


def test_nodes_from_outputs_to_inputs():
    """Nodes stand from the outputs down; the inputs' own nodes are not among them."""
    tape = _recorded(lambda x: x.sin().exp(), torch.randn(3))
    assert _names(tape) == ["ExpBackward0", "SinBackward0"]
    assert tape.outputs[0][0] is tape.nodes[0]
    assert list(tape.inputs.values()) == [0]


def test_every_node_before_those_it_leads_to():
    """In a graph with many paths, each node stands once, before everything below it."""

    def f(x):
        y = x
        for k in range(10):
            y = y * x + y.roll(k) if k % 2 else (y + x.sum()) * y.sin()
        return y, y[0] * x

    tape = _recorded(f, torch.randn(4))
    place = {id(node): k for k, node in enumerate(tape.nodes)}
    assert len(place) == len(tape.nodes)
    for node in tape.nodes:
        for edge in node.inputs:
            if edge is not None and id(edge[0]) in place:
                assert place[id(edge[0])] > place[id(node)]


def test_only_nodes_between_the_ends():
    """Nodes that lead to no input, or that no output needs, are left out."""
    w = torch.randn(3, requires_grad=True)

    def f(x):
        x.exp()
        return (w.cos() * x).sum()

    tape = _recorded(f, torch.randn(3))
    assert _names(tape) == ["SumBackward0", "MulBackward0"]
    assert tape.nodes[1].inputs[0] is None
    assert not tape.nodes[1].needs(0)
    assert tape.nodes[1].needs(1)
    assert not tape.nodes[1].needs(2)


def test_foreign():
    """The tape tells whether something outside also asks for gradients."""
    w = torch.randn(3, requires_grad=True)
    assert _recorded(lambda x: x * w, torch.randn(3)).foreign
    assert _recorded(lambda x: (x, w * 2), torch.randn(3)).foreign
    assert not _recorded(lambda x: x * w.detach(), torch.randn(3)).foreign
    assert not _recorded(lambda x: x.sin(), torch.randn(3)).foreign


def test_outputs():
    """Outputs that are inputs, constants, or one of several results of an op are told apart."""
    tape = _recorded(lambda x, y: (x, torch.ones(2), y.unbind()[1], x), torch.randn(3), torch.randn(3))
    first, constant, part, again = tape.outputs
    assert tape.inputs[first[0]] == 0
    assert constant is None
    assert part[1] == 1
    assert again == first
    assert _names(tape) == ["UnbindBackward0"]


def test_no_graph():
    """A function without a graph has an empty tape."""
    tape = _recorded(lambda x: x.detach() * 2, torch.randn(3))
    assert tape.nodes == []
    assert tape.outputs == [None]


def test_same_input_twice():
    """Two inputs are two ends, even where they hold the same tensor."""
    x = torch.randn(3)
    tape = _recorded(lambda a, b: a * b, x, x)
    assert sorted(tape.inputs.values()) == [0, 1]


ROW = torch.tensor([1])

#: Ops at a position out of range of a tensor without entries, which PyTorch does not look at
OUT_OF_RANGE = {
    "index_copy": lambda x: x.index_copy(0, ROW, 2 * x),
    "index_add": lambda x: x.index_add(0, ROW, 2 * x),
    "index_fill": lambda x: x.index_fill(0, ROW, 2.0),
    "index_fill by a tensor": lambda x: x.index_fill(0, ROW, x.sum()),
    "index_put": lambda x: x.index_put((ROW,), 2 * x),
    "a write": lambda x: (2 * x).index_put_((ROW,), x),
    "scatter": lambda x: x.scatter(0, ROW.new_ones(1, 0), 2 * x),
    "gather": lambda x: x.gather(0, ROW.new_ones(1, 0)),
    "index": lambda x: x[ROW] * 2,
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_tensors_without_entries_are_left_out(name):
    """No rule or formula is asked about them: each transform answers, the double backward's own failing index too."""
    f, x = OUT_OF_RANGE[name], torch.zeros(1, 0, dtype=torch.float64)
    more = lambda x: torch.cat([f(x).flatten().sin(), torch.ones(2, dtype=x.dtype)])
    assert not _recorded(f, x).nodes
    for transform in (jacrev, jacfwd, lambda f: lambda x: jacobian(f)(x).to_dense()):
        assert transform(f)(x).shape == (1, 0, 1, 0)
        assert transform(more)(x).shape == (2, 1, 0)
        assert vmap(transform(more))(x.expand(3, 1, 0)).shape == (3, 2, 1, 0)
    assert hessian(lambda x: more(x).square().sum())(x).shape == (1, 0, 1, 0)


def test_entries_beside_tensors_without():
    """What goes past a tensor without entries is differentiated as it is alone."""
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    parts = lambda x: torch.cat([x[2:].sin(), x * x, x.new_zeros(3, 0).mm(x[:0, None]).flatten()])
    expected = torch.cat([torch.diag(2 * x), torch.zeros(3, 2, dtype=x.dtype)])
    torch.testing.assert_close(jacrev(parts)(x), expected)
    tape = _recorded(parts, x)
    assert _names(tape) == ["CatBackward0", "MulBackward0"]
    ends = _recorded(lambda x: x.split([0, 2]), x).outputs
    assert [end is None for end in ends] == [True, False]


def test_metas():
    """A node knows shape, dtype and device of its outputs and of what it leads to."""
    tape = _recorded(lambda x: x.double().reshape(2, 3).max(1).values, torch.randn(6))
    top = tape.nodes[0]
    assert top.outputs[0] == Meta((2,), torch.float64, torch.device("cpu"))
    assert top.shape == (2,)
    assert top.into(0) == Meta((2, 3), torch.float64, torch.device("cpu"))
    assert tape.nodes[-1].into(0) == Meta((6,), torch.float32, torch.device("cpu"))


def test_saved_dims_are_signed():
    """Dims saved as unsigned 64-bit numbers are read as what was written."""
    tape = _recorded(lambda x: x.sum((-1, 0)).exp(), torch.randn(2, 3, 4))
    assert tape.nodes[-1].saved("dim") == (-1, 0)
    tape = _recorded(lambda x: x.softmax(-1), torch.randn(2, 3))
    assert tape.nodes[0].saved("dim") == -1


def test_saved_tensors_are_cut():
    """Under no_grad a saved tensor comes without graph, otherwise with it; it is noted as lent."""
    tape = _recorded(lambda x: x.exp() * 2, torch.randn(3))
    node = tape.nodes[-1]
    assert node.saved("result").requires_grad
    with torch.no_grad():
        assert not node.saved("result").requires_grad
    assert len(node.borrowed) == 2


def test_complex():
    """A node tells whether it touches complex numbers."""
    tape = _recorded(lambda x: torch.view_as_real(torch.complex(x, x)).sin(), torch.randn(3))
    assert [node.touches_complex for node in tape.nodes] == [False, True, True]


def test_names_of_functions():
    """A Python Function's node has the Function's name, whatever is kept on its ctx."""

    class Mine(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.name = "another"
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    assert _names(_recorded(Mine.apply, torch.randn(3))) == ["MineBackward"]


def test_deep():
    """A graph deeper than Python's recursion limit is read without recursion."""

    def f(x):
        for _ in range(20_000):
            x = x + 1
        return x

    assert len(_recorded(f, torch.randn(1)).nodes) == 20_000


def test_make():
    """Tapes of one make share what was estimated of them; other joints, shapes, dtypes, ops and outputs are another."""
    x = torch.randn(4)
    functions = [
        lambda x: x.sin() - x.exp(),
        lambda x: x.exp() - x.sin(),
        lambda x: x.sin() - x.sin(),
        lambda x: x.sin() + x.exp(),
        lambda x: (x.sin() - x.exp())[1:],
        lambda x: (x.sin() - x.exp())[:2],
        lambda x: (x.sin() - x.exp()).double(),
        lambda x: x.exp() - x.exp().sin(),
        lambda x: (y := x.exp()) - y.sin(),
        lambda x: (y := x.exp()).sin() - y,
    ]
    makes = [_recorded(f, x).make for f in functions]
    assert len(set(makes)) == len(makes)
    assert [_recorded(f, x).make for f in functions] == makes
    assert _recorded(functions[0], torch.randn(5)).make not in makes
    assert _recorded(functions[0], x.double()).make not in makes
    first, again = (_recorded(functions[0], torch.randn(4)) for _ in range(2))
    assert first.estimates is again.estimates
    # Of what leads to no input nothing stands on the tape, and so not how large it is.
    outputs = [x.clone().requires_grad_().clone(), torch.randn(3)]
    tapes = [tape_of(read_graph(outputs, [outputs[0].grad_fn])) for _ in range(2)]
    assert tapes[0].make == tapes[1].make
    assert tapes[0].estimates is not tapes[1].estimates


def test_estimates_are_forgotten(monkeypatch):
    """Once tapes of so many parts were estimated, all is; those who have one keep it."""
    monkeypatch.setattr("torchjac._capture.tape._estimates", {})
    tapes = [_recorded(lambda x: x.sin(), torch.randn(size)) for size in (2, 3, 4)]
    monkeypatch.setattr("torchjac._capture.tape.MOST_PARTS", 2 * len(tapes[0].make) - 1)
    first, second, third = (tape.estimates for tape in tapes)
    again = [_recorded(lambda x: x.sin(), torch.randn(size)).estimates for size in (4, 2)]
    assert again[0] is third
    assert again[1] is not first
    assert tapes[0].estimates is first is not second


RESHAPED = {
    "there and back": (
        lambda x: x.sin()[:, None].view(3, 2, 1).squeeze(-1).view(6).view(3, 2).cos(),
        ["Cos", "Sin"],
    ),
    "halfway back": (lambda x: x.sin().view(6).view(2, 3).view(6).exp(), ["Exp", "View", "Sin"]),
    "read between": (
        lambda x: (y := x.sin().view(6)).view(3, 2).cos() + y.exp().view(3, 2),
        ["Add", "View", "Exp", "View", "Cos", "Sin"],
    ),
    "of an output": (lambda x: x.sin().view(6).view(3, 2), ["Sin"]),
    "of the input": (lambda x: x.view(6).view(3, 2).sin(), ["Sin"]),
    "from a slot": (lambda x: x.split([2, 1])[1].view(2).view(1, 2).exp(), ["Exp", "SplitWithSizes"]),
    "expanded": (lambda x: x[:, :1].expand(3, 2).expand(3, 2).exp(), ["Exp", "Expand", "Slice"]),
    "turned": (lambda x: x.t().permute(1, 0).view(3, 2).exp(), ["Exp", "Permute", "T"]),
    "a vector": (lambda x: x[0].permute(0).exp(), ["Exp", "Select"]),
    "of no dim": (lambda x: x.squeeze(0).exp(), ["Exp"]),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_reshapes_that_come_back(name):
    """Reshapes that end in the shape they began with are not on the tape, unless something reads between."""
    f, kept = RESHAPED[name]
    x = torch.rand(3, 2, dtype=torch.float64)
    found = [name.split("Backward")[0] for name in _names(_recorded(f, x))]
    assert sorted(found) == sorted(kept)
    assert found[0] == kept[0]
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))
