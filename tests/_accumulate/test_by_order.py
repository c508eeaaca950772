"""Every order of multiplication gives the same Jacobian, wherever it turns."""

import itertools

import pytest
import torch
from tests._accumulate.test_forward import NET, PROGRAMS
from tests.allocations import Allocations
from tests.fixtures import double as double
from tests.forced import force
from torch.func import grad
from torch.utils.flop_counter import FlopCounterMode

from torchjac import jacobian, jacrev, vmap
from torchjac._accumulate import by_order
from torchjac._accumulate.estimate import places
from torchjac._accumulate.order import Order, split
from torchjac._accumulate.seeds import NO_LIMITS
from torchjac._blocks.write import dense
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian


@pytest.fixture(params=["forward", "first cut", "middle cut", "last cut"])
def turned(request, monkeypatch):
    """Any function is accumulated in this order, where its tape has a place for it."""

    def choose(tape, out_shapes):
        if request.param == "forward":
            return Order(tape, "forward")
        cuts = [at for at in range(1, len(tape.nodes)) if can_split(tape, at)]
        if not cuts:
            return Order(tape, "reverse")
        at = cuts[{"first cut": 0, "middle cut": len(cuts) // 2, "last cut": -1}[request.param]]
        return split(tape, at, out_shapes)

    monkeypatch.setattr(by_order, "pick", choose)
    force(monkeypatch, "structure")
    return request.param


def can_split(tape, at):
    """Whether only first outputs of nodes are alive below so many nodes."""
    made = set(tape.nodes[:at])
    reached = [*tape.outputs, *(edge for node in tape.nodes[:at] for edge in node.inputs)]
    return all(edge is None or edge[1] == 0 or edge[0] in made for edge in reached)


@pytest.mark.parametrize("name", PROGRAMS)
def test_cut_anywhere(name):
    """Above and below any place of the tape, in each direction, multiplied there."""
    f, shape = PROGRAMS[name]
    x = torch.randn(shape)
    expected = loop_jacobian(f, x)
    recorded = record("test", f, 0, False, (x,), {})
    tape = recorded.captured.tape
    for at in range(len(tape.nodes) + 1):
        if not can_split(tape, at):
            continue
        cut = split(tape, at, recorded.shapes)
        for above in ("reverse", "forward"):
            for below in ("reverse", "forward"):
                order = cut._replace(above=Order(cut.above.tape, above), below=Order(cut.below.tape, below))
                with walking(recorded):
                    ((blocks,),) = by_order.accumulate_in(order, recorded.shapes, NO_LIMITS, None)
                found = dense(blocks, recorded.shapes[0], x.shape, x)
                torch.testing.assert_close(found, expected, msg=lambda text, at=at: f"cut at {at}: {text}")


def test_compositions(turned):
    """Second derivatives, vmap, grad, trees and graphs outside, in every order."""
    f = lambda x: torch.tanh(torch.tanh(x @ NET[0]).cumsum(-1) @ NET[1]) * x.sum()
    x, batch = torch.randn(4), torch.randn(3, 4)
    reference, close = torch.func.jacrev(f), torch.testing.assert_close
    close(jacrev(f)(x), reference(x))
    close(jacrev(jacrev(f))(x), loop_jacobian(reference, x))
    close(vmap(jacrev(f))(batch), vmap(reference)(batch))
    close(grad(lambda x: jacrev(f)(x).square().sum())(x), grad(lambda x: reference(x).square().sum())(x))
    close(vmap(jacrev(jacrev(f)))(batch), vmap(torch.func.jacrev(reference))(batch))
    assert torch.autograd.gradcheck(lambda x: jacrev(f)(x), (x.clone().requires_grad_(),))


def test_trees(turned):
    """Several inputs and outputs, one of them an input, one independent, one given twice."""

    def f(x, y):
        z = (x.sin().sum() * y).exp()
        return {"z": z, "again": z, "x": x, "none": torch.ones(2), "both": z.sum() * x}

    x, y = torch.randn(3), torch.randn(2)
    found = jacrev(f, argnums=(0, 1))(x, y)
    expected = torch.func.jacrev(f, argnums=(0, 1))(x, y)
    torch.testing.assert_close(found, expected)


def test_dtypes(turned):
    """The answer is in the input's dtype, whatever the ops on the way are in."""
    f = lambda x: (x.double().sin().sum() * torch.ones(3)).float().exp()
    x = torch.randn(4, dtype=torch.float32)
    found = jacrev(f)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loop_jacobian(f, x))
    assert jacobian(f)(x).to_dense().dtype == torch.float32


@pytest.mark.usefixtures("turned")
def test_numbers_that_are_not_finite():
    """Where the orders would differ in an infinity or a NaN, the answer is reverse order's, which is autograd's."""
    for f in (
        lambda x: (x.sqrt() @ NET[0]) @ NET[1],
        lambda x: torch.where(x > 0, (x.sqrt() @ NET[0]).repeat(2)[:4] * 0, x).log(),
    ):
        x = torch.tensor([0.0, 1.0, 0.0, 4.0])
        torch.testing.assert_close(jacrev(f)(x), jacobian(f, mode="reverse")(x).to_dense(), equal_nan=True)


def _flops(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def _network(*sizes):
    weights = [torch.randn(a, b) for a, b in itertools.pairwise(sizes)]

    def f(x):
        for weight in weights:
            x = torch.tanh(x @ weight)
        return x

    return f


def test_arithmetic_of_forward():
    """4 → 2000 multiplies 4 columns through the layers, a two-hundredth of reverse order."""
    f, x = _network(4, 50, 50, 2000), torch.randn(4)
    own = _flops(lambda: f(x))
    assert _flops(lambda: jacrev(f)(x)) - own == 2 * 4 * (50 * 50 + 50 * 2000)
    assert _flops(lambda: jacobian(f, mode="reverse")(x)) - own == 2 * 2000 * (50 * 50 + 50 * 4)


def test_arithmetic_at_a_bottleneck():
    """800 → 200 → 3 → 200 → 800: three rows, three columns, and their product."""
    f, x = _network(800, 200, 3, 200, 800), torch.randn(800)
    own = _flops(lambda: f(x))
    expected = 2 * (3 * 200 * 800 + 3 * 200 * 800 + 800 * 3 * 800)
    assert _flops(lambda: jacrev(f)(x)) - own == expected
    assert _flops(lambda: jacobian(f, mode="reverse")(x)) - own > 20 * expected


def test_the_answer_is_written_once():
    """At a bottleneck the product is the answer: nothing else as large is made."""
    f, x = _network(800, 200, 3, 200, 800), torch.randn(800)
    with Allocations(800 * 800) as seen:
        found = jacrev(f)(x)
    assert seen.storages.keys() == {found.untyped_storage().data_ptr()}


def test_report():
    """The steps of both parts, above the cut and then below it."""
    f, x = _network(800, 200, 3, 200, 800), torch.randn(800)
    recorded = record("test", f, 0, False, (x,), {})
    assert min(place.work for place in places(recorded.captured.tape, recorded.shapes)) > 0
    report = by_order.Report()
    with walking(recorded):
        by_order.accumulate_best(recorded.captured.tape, recorded.shapes, report=report)
    assert len(report.steps) == len(recorded.captured.tape.nodes)
