"""The forward walk gives the blocks that the reverse walk gives, in the other order of multiplication."""

import pytest
import torch
from tests.fixtures import double as double
from tests.forced import force
from torch.func import grad
from torch.nn import functional as F

from torchjac import jacobian, jacrev, program_cache
from torchjac._accumulate import planned, transpose_jvp
from torchjac._accumulate.forward import accumulate_forward, goes_forward
from torchjac._accumulate.reverse import accumulate
from torchjac._accumulate.seeds import NO_LIMITS
from torchjac._accumulate.transpose_jvp import push_up
from torchjac._blocks.block import identity
from torchjac._blocks.write import dense
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian


class Numpy(torch.autograd.Function):
    """A square whose backward leaves PyTorch: its own graph would say that it is constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(2 * x.detach().numpy() * cotangent.detach().numpy())


TABLE = torch.tensor([3, 0, 0, 2, 1])
LINES = torch.randn(2, 30, dtype=torch.float64)
NET = [torch.randn(4, 7, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)]

#: Functions and the shape of their argument: explicit rules, seeds, and calls of the backward's own graph.
PROGRAMS = {
    "sin": (torch.sin, (5,)),
    "identity": (lambda x: x, (3, 2)),
    "stencil": (lambda x: x[1:] * x[:-1].sin(), (6,)),
    "network": (lambda x: torch.tanh(x @ NET[0]) @ NET[1], (5, 4)),
    "gather": (lambda x: x[TABLE].exp(), (4,)),
    "scatter": (lambda x: torch.zeros(6).index_add(0, TABLE, x.sin()), (5,)),
    "broadcast": (lambda x: (x[:, None] * x[None, :2]).relu(), (4,)),
    "softmax": (lambda x: (x * 2).softmax(-1)[:, 1:], (3, 4)),
    "scan by its graph": (lambda x: (x @ torch.ones(2, 30)).cumsum(0), (2,)),
    "norm by its graph": (lambda x: torch.nn.functional.layer_norm(x @ LINES, (30,)), (2,)),
    "several outputs": (lambda x: torch.linalg.svdvals(x + torch.eye(3, 4)), (3, 4)),
    "second output": (lambda x: torch.sort(x, dim=-1)[0] * x.max(-1, keepdim=True)[0], (2, 3)),
    "in place": (lambda x: torch.ones(5).index_copy_(0, TABLE[[0, 1]], x).mul_(x.sum()), (2,)),
    "write": (lambda x: torch.cat([x, x]).clone().index_put_((TABLE,), x.sum()), (3,)),
    "Python function": (lambda x: Numpy.apply(x.repeat(3)), (2,)),
    "scalar": (lambda x: torch.stack([x, x.sin()]), ()),
    "one": (lambda x: x.expand(3) ** 2, (1,)),
    "nothing in": (lambda x: x.sum().expand(2), (0,)),
    "nothing out": (lambda x: x[:0], (3,)),
    "independent": (lambda x: torch.ones(2), (3,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_against_the_loop(name):
    """Each Jacobian is the row-by-row loop's."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    found = jacobian(f, mode="forward")(x).to_dense()
    torch.testing.assert_close(found, loop_jacobian(f, x))


@pytest.mark.parametrize("name", ["sin", "stencil", "network", "gather", "broadcast", "softmax"])
def test_structure_is_kept(name):
    """Forward and reverse give as many blocks that hold as many numbers."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    there, back = jacobian(f, mode="forward")(x), jacobian(f, mode="reverse")(x)
    assert len(there.blocks) == len(back.blocks)
    assert there.stored == back.stored
    assert there.nnz == back.nnz


def test_several_inputs_and_outputs():
    """Each output has the blocks of each input, empty where it does not depend on it."""
    f = lambda x, y: (x * y.sum(), y.sin(), x[:1])
    x, y = torch.randn(3), torch.randn(2)
    recorded = record("test", f, (0, 1), False, (x, y), {})
    with walking(recorded):
        ahead = accumulate_forward(recorded.captured.tape, recorded.shapes)
        back = accumulate(recorded.captured.tape, recorded.shapes)
    assert [[len(blocks) for blocks in row] for row in ahead] == [[1, 1], [0, 1], [1, 0]]
    assert [[len(blocks) for blocks in row] for row in back] == [[1, 1], [0, 1], [1, 0]]


def test_what_is_carried_has_columns():
    """Through a network that widens, each node carries a number for each input and entry, none for an output."""
    inner, outer = torch.randn(8, 3), torch.randn(500, 8)
    report = jacobian(lambda x: (outer @ torch.tanh(inner @ x)).sin(), mode="forward")(torch.randn(3)).report
    assert [(step.name, step.stored) for step in report.steps] == [
        ("MvBackward0", 8 * 3),
        ("TanhBackward0", 8 * 3),
        ("MvBackward0", 500 * 3),
        ("SinBackward0", 500 * 3),
    ]


def test_a_long_scan_is_called_once(monkeypatch):
    """A scan over 5000 entries that depend on 2 is called once, and its graph on no more than 2 rows at a time."""
    import torchjac._accumulate.seeds as seeds

    rows, original = [], seeds.call_rows
    monkeypatch.setattr(seeds, "call_rows", lambda node, slot, part, *rest: (
        rows.append(part.shape[0]), original(node, slot, part, *rest))[1])  # fmt: skip
    jac = jacobian(lambda x: (x[0] * torch.ones(5000) + x[1]).cumsum(0), mode="forward")(torch.randn(2))
    assert [step.calls for step in jac.report.steps if step.name == "CumsumBackward0"] == [1]
    assert sum(rows) <= 4


def test_dropped_entries():
    """Where an op selects, what it drops is dropped even if it is infinite, as in reverse."""
    f = lambda x: torch.where(x > 0, x.sqrt().repeat(2)[:3], 0.0)
    x = torch.tensor([0.0, 1.0, 4.0])
    found = jacobian(f, mode="forward")(x).to_dense()
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 0.5, 0.25])))


def test_complex_numbers_stay_in_reverse():
    """A tape that touches complex numbers is not walked forward, and the answer is right all the same."""
    f = lambda x: torch.fft.rfft(x).abs()
    x = torch.randn(5)
    assert not goes_forward(record("test", f, 0, False, (x,), {}).captured.tape)
    torch.testing.assert_close(jacobian(f, mode="forward")(x).to_dense(), loop_jacobian(f, x))


def test_a_formula_without_a_graph_is_called_on_rows():
    """The backward of a sparse tensor of values records nothing: that is no sign of a zero."""
    index = torch.tensor([[0, 1, 1, 4], [2, 0, 3, 4]])
    f = lambda x: torch.sparse_coo_tensor(index, x, (5, 5)).to_dense()
    tape = record("test", f, 0, False, (torch.randn(4),), {}).captured.tape
    (node,) = (node for node in tape.nodes if node.name.startswith("SparseCooTensor"))
    ((slot, _, block),) = push_up(node, 0, {0: ()}, {0: {0: [identity((4,))]}}, [(4,)], NO_LIMITS, {})
    assert slot == 0
    found = dense([block], (4,), (5, 5), torch.empty(0))
    torch.testing.assert_close(found, loop_jacobian(f, torch.randn(4)).movedim(-1, 0))


def test_third_derivatives_through_a_sparse_hessian():
    """The entries of a sparse Hessian are differentiated as any other tensor, whichever order is picked."""
    g = lambda x: (x[1:] * x[:-1] ** 2).sum() + (x**3).sum()
    f = lambda x: jacobian(grad(g))(x).to_sparse().values()
    x = torch.randn(100)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))


#: Functions of a few numbers and of weights, with nodes that go up by their formula's own graph
FORMULAS = {
    "decoder": lambda x, w: F.conv_transpose2d(
        F.conv_transpose2d(
            (x @ w[:2, :36]).sin().view(-1, 4, 3, 3), w[:4, :18].reshape(4, 2, 3, 3), stride=2
        ).relu(),
        w[:2, :9].reshape(2, 1, 3, 3),
        padding=1,
    ),
    "grouped": lambda x, w: F.conv1d(
        (x @ w[:2, :40]).sin().view(-1, 4, 10), w[:6, :6].view(6, 2, 3), groups=2, dilation=2
    ),
    "layer norm": lambda x, w: F.layer_norm(x @ w[:2], (40,), w[2], w[3]),
    "softmax": lambda x, w: (x @ w[:2]).softmax(-1) @ w.T,
    "scan": lambda x, w: (x @ w[:2]).cumsum(-1).sin(),
}


@pytest.mark.parametrize("name", ["decoder", "grouped", "softmax"])
def test_some_nodes_are_transposed_by_an_op(name, monkeypatch):
    """Tangents pass them without a graph of their backward formula."""
    f = FORMULAS[name]
    x, w = torch.randn(2, dtype=torch.float64), torch.randn(8, 40, dtype=torch.float64)

    def no_graph(*_):
        raise AssertionError

    monkeypatch.setattr(transpose_jvp, "_formula", no_graph)
    found = jacobian(lambda x: f(x, w), mode="forward")(x).to_dense()
    torch.testing.assert_close(found, loop_jacobian(lambda x: f(x, w), x))


@pytest.mark.parametrize("asks", [False, True], ids=["constant weights", "weights that ask for gradients"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_program_of_the_forward_walk(name, asks, monkeypatch):
    """The graphs of formulas are made anew at every run: the steps read what was saved then, and gradients reach it."""
    force(monkeypatch, "forward")
    program_cache(clear=True)
    for seed in range(4):
        made = torch.Generator().manual_seed(seed)
        x, w = (torch.randn(shape, dtype=torch.float64, generator=made) for shape in ((2,), (8, 40)))
        w.requires_grad_(asks)
        f = lambda x, w=w: FORMULAS[name](x, w)
        found = jacrev(f)(x)
        torch.testing.assert_close(found, loop_jacobian(f, x))
        if asks:
            (slope,) = torch.autograd.grad(found.square().sum(), w)
            (expected,) = torch.autograd.grad(torch.func.jacrev(f)(x).square().sum(), w)
            torch.testing.assert_close(slope, expected)
    (entry,) = planned.PROGRAMS.entries.values()
    assert entry.program.runs >= 3
