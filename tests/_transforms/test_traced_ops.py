"""The ops that a trace leaves to compile: counted, and by rows where those are far fewer."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchjac._transforms.compile as _compiling
from torchjac import compile, hessian, jacrev
from torchjac._transforms import dense
from torchjac._transforms.op_recording import record_ops
from torchjac._transforms.simplify_graph import looks
from torchjac._transforms.traced_ops import ManySizes, count_ops, last_op
from torchjac.testing import loop_jacobian


def images(size, channels=3):
    """A small net of convolutions, and an image."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 1, 3, padding=1)]
    return nn.Sequential(*layers).double().requires_grad_(False), torch.randn(1, 1, size, size + 1).double()


def filtered(x):
    return (
        F.conv1d(F.pad(x, (9, 9))[None, None], torch.linspace(0, 1, 19, dtype=x.dtype)[None, None])[0, 0] ** 2
    )


def written(x):
    out = torch.zeros_like(x)
    for k in range(6):
        out[k::7] = x[k::7].sin() * x[k]
    return out


def recurrent():
    """A recurrent net over a batch."""
    torch.manual_seed(0)
    net = nn.RNN(3, 8, batch_first=True).double().requires_grad_(False)
    return lambda x: net(x)[0], torch.randn(4, 7, 3, dtype=torch.float64)


@pytest.fixture
def compiled(monkeypatch):
    """The ops of each graph that is compiled."""
    graphs = []
    compile_graph = _compiling.compile_graph

    def seen(graph, example, backend):
        graphs.append([node for node in graph.graph.nodes if node.op == "call_function"])
        return compile_graph(graph, example, backend)

    monkeypatch.setattr(_compiling, "compile_graph", seen)
    return graphs


@pytest.mark.parametrize(
    ("function", "x"),
    [(filtered, torch.randn(20, dtype=torch.float64)), recurrent()],
    ids=["filter", "recurrence"],
)
def test_rows_where_far_fewer(function, x, compiled, monkeypatch) -> None:
    """A small Jacobian takes few ops by rows where structure takes many, and what was not taken is gone."""
    with torch.no_grad():
        found = compile(jacrev(function), backend="eager")(x)
        monkeypatch.setattr(dense, "ops_pay", lambda *_: False)
        by_structure = compile(jacrev(function), backend="eager")(x)
    torch.testing.assert_close(found, loop_jacobian(function, x))
    torch.testing.assert_close(by_structure, found)
    assert len(compiled[0]) <= 0.7 * len(compiled[1])


def test_structure_where_rows_are_slow(compiled) -> None:
    """A large image goes by structure, which multiplies 25 numbers for each pixel and not all pixels."""
    function, x = images(70, 1)
    with torch.no_grad():
        compile(jacrev(function), backend="eager")(x)
    whole = [node for node in compiled[0] if node.meta["val"].numel() >= x.numel() ** 2 // 2]
    written = {torch.ops.torchjac.zeros.default, torch.ops.aten.as_strided_scatter.default}
    assert whole
    assert {node.target for node in whole if not looks(node)} <= written


def test_many_sizes_are_one_program() -> None:
    """A program for many sizes is by structure at all of them."""
    jac = compile(jacrev(lambda x: filtered(x)[:3] * x.sum()), backend="eager", dynamic=True)
    for size in (12, 40, 400):
        x = torch.randn(size, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(jac(x), loop_jacobian(lambda x: filtered(x)[:3] * x.sum(), x))
    assert jac.captures == 2


def test_second_derivatives() -> None:
    """A Hessian whose outer rows are fewer ops is right."""
    energy = lambda x: (filtered(x) * written(x)[:, None]).sin().sum()
    x = torch.randn(9, dtype=torch.float64)
    with torch.no_grad():
        found = compile(hessian(energy), backend="eager")(x)
    torch.testing.assert_close(found, loop_jacobian(torch.func.grad(energy), x))


def test_count() -> None:
    """Equal ops are counted once, views never, and nothing where sizes stand for others."""
    counts = []

    def function(given):
        start = last_op()
        (x,) = given
        result = x.t().sin() + x.t().sin() * x.view(-1)[:1]
        counts.append(start if start is None else count_ops(start, last_op()))
        return [result]

    record_ops(function, [torch.rand(3, 3)])
    record_ops(function, [torch.rand(3, 3)], ManySizes())
    assert counts == [3, None]
    assert last_op() is None
