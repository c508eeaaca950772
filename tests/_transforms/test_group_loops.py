"""group_loops: as few runs of loops between calls of libraries as there can be, and the same answers."""

from itertools import groupby

import torch

from torchjac import compile, jacrev
from torchjac._transforms.group_loops import group_loops
from torchjac._transforms.op_recording import record_ops
from torchjac._transforms.simplify_graph import looks
from torchjac.testing import loop_jacobian

aten = torch.ops.aten
X, W = torch.randn(3, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)


def runs(function, *tensors):
    """The runs of ops of a recorded graph after it was ordered: "mm" for those of products, "-" for others."""
    graph = record_ops(lambda given: [function(*given)], list(tensors)).graph
    group_loops(graph)
    torch.testing.assert_close(graph(*tensors)[0], function(*tensors))
    nodes = [each for each in graph.graph.nodes if each.op == "call_function" and not looks(each)]
    return [kind for kind, _ in groupby("mm" if each.target is aten.mm.default else "-" for each in nodes)]


def test_one_run_between_products():
    """What a product does not need comes after it, and products that are ready come together."""

    def function(x, w):
        first, second = x.sin(), x.cos()
        left = first @ w
        third = x.exp() + second
        right = second @ w
        return left + right * third + torch.ones(5, dtype=x.dtype)

    assert runs(function, X, W) == ["-", "mm", "-"]
    assert runs(lambda x, w: (x @ w).sin() @ w + x.exp(), X, W) == ["mm", "-", "mm", "-"]


def test_memory_of_zeros():
    """Memory is filled where it is first written into; writes and reads of it keep their order."""

    def function(x, w):
        out = x.new_zeros(6, 5)
        out[:3] = x @ w
        before = out.sum(0)
        out[3:] = out[:3].sin() @ w
        out[0] *= 2
        return out + before

    assert runs(function, X, W) == ["mm", "-", "mm", "-"]


def test_compiled():
    """Distances, whose answer is written after a call of a library, are right; so is a gate of small products."""
    points = torch.randn(6, 5, dtype=torch.float64)
    for function in (lambda x: torch.cdist(x, points), lambda x: torch.sigmoid(x @ W + 1).tanh() * (x @ W.T)):
        torch.testing.assert_close(compile(jacrev(function))(X), loop_jacobian(function, X))
