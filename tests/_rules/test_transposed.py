"""Local Jacobians that are another op's transposed: tangents pass as rows, whatever the geometry of a convolution."""

import pytest
import torch
from tests._rules.cases import Sampler
from tests.forced import force
from torch.nn import functional as F

from torchjac import hessian, jacfwd, jacobian, vmap
from torchjac._accumulate.reverse import walk
from torchjac._accumulate.seeds import NO_LIMITS
from torchjac._blocks.block import identity
from torchjac._blocks.write import dense
from torchjac._rules.batched_vjp import by_formula
from torchjac._rules.call import call
from torchjac._rules.transposed import transposed
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian

s = Sampler(11)

#: Functions of x and what follows it
CALLS = {
    "strided": (
        lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 5, 6), (4, 3, 3, 2),
    ),
    "grouped": (lambda x, w: F.conv1d(x, w, padding=1, groups=2), (2, 4, 5), (6, 2, 3)),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=(1, 0)), (1, 3, 3, 2), (3, 2, 3, 3),
    ),
    "transposed, grouped": (lambda x, w: F.conv_transpose1d(x, w, stride=3, groups=2), (2, 4, 3), (4, 3, 2)),
    "unbatched": (lambda x, w: F.conv2d(x, w), (2, 4, 4), (3, 2, 2, 2)),
    "volume": (lambda x, w: F.conv3d(x, w, padding=1), (1, 1, 2, 3, 2), (2, 1, 3, 3, 3)),
    "softmax": (lambda x, w: (x * w).softmax(1), (2, 3, 4), (3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_each_way_through_the_node(name):
    """Blocks with their structure, rows by the formula, and a call: all what the op does to tangents of its input."""
    f, shape, weight = CALLS[name]
    x, w = s(*shape), s(*weight)
    recorded = record("test", lambda x: f(x, w), 0, False, (x,), {})
    node = next(node for node in recorded.captured.tape.nodes if node.name.startswith(("Conv", "Softmax")))
    expected = loop_jacobian(lambda x: node.fn(x)[0] if "Conv" in node.name else node.fn(x), s(*node.shape))
    into, out = node.into(0).shape, node.shape
    expected = expected.movedim(
        list(range(len(into))), list(range(-len(into), 0))
    )  # of a backward: transposed
    tangents = s(5, *into)
    moved = torch.stack([torch.tensordot(expected, one, len(into)) for one in tangents])
    with walking(recorded):
        tape = transposed(node, 0)
        ((found,),) = walk(tape, {(tape.nodes[0], 0): {0: [identity(into)]}}, [into], NO_LIMITS)
        rows, *_ = by_formula(tape.nodes[0], 0, tangents, [0])
        called = torch.stack([call(tape.nodes[0], [one])[0] for one in tangents])
    found = dense(found, into, out, x).movedim(list(range(len(into))), list(range(-len(into), 0)))
    for each, wanted in ((found, expected), (rows, moved), (called, moved)):
        torch.testing.assert_close(each, wanted)


@pytest.mark.parametrize("name", CALLS)
def test_tangents(name, monkeypatch):
    """Alone and above other ops, dense and as an operator, for a batch, and with a graph to the weight."""
    force(monkeypatch, "forward")
    f, shape, weight = CALLS[name]
    x, w = s(*shape), s(*weight).requires_grad_()
    g = lambda x: f(x.sin(), w)
    expected = loop_jacobian(g, x)
    torch.testing.assert_close(jacfwd(g)(x), expected)
    torch.testing.assert_close(jacobian(g, mode="forward")(x).to_dense(), expected)
    torch.testing.assert_close(vmap(jacfwd(g))(torch.stack([x, -x]))[1], loop_jacobian(g, -x))
    slope, *_ = torch.autograd.grad(jacfwd(g)(x).square().sum(), w)
    (wanted,) = torch.autograd.grad(torch.func.jacrev(g)(x).square().sum(), w)
    torch.testing.assert_close(slope, wanted)


def test_second_derivatives():
    """Of a decoder, whose Hessian goes up first: what was emitted is read again."""
    _, _, shape = CALLS["transposed"]
    w, v = s(*shape), s(2, 18)
    f = lambda x: F.conv_transpose2d((x @ v).sin().view(1, 3, 3, 2), w, stride=2).sin().sum()
    x = s(2)
    torch.testing.assert_close(hessian(f)(x), loop_jacobian(torch.func.grad(f), x))
    torch.testing.assert_close(jacfwd(jacfwd(f))(x), loop_jacobian(torch.func.grad(f), x))
