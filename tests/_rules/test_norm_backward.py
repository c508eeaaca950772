"""Normalisations written anew: the values of PyTorch, also of a batch, and right derivatives of any order."""

import pytest
import torch
from tests._rules.cases import Case, Sampler
from tests._rules.test_normalise import CASES, layer_norm_backward
from tests.forced import force
from tests.versions import lacks

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._accumulate.dense_rows import dense_rows
from torchjac._accumulate.reverse import accumulate
from torchjac._rules.backward_overrides import by_override
from torchjac._rules.call import call
from torchjac._rules.norms import FIRST, SECOND
from torchjac._transforms.call_function import record, walking
from torchjac.testing import finite_differences

F = torch.nn.functional
s = Sampler(3)
weight, mean, var = s(4), s(4), s.positive(4)

#: Functions of x (3, 4), the weight once a constant and once made of x
NORMS = {
    "layer": lambda x: F.layer_norm(x, (4,), weight, mean),
    "layer, of x": lambda x: F.layer_norm(x, (4,), x[0], x[1]),
    "layer, plain": lambda x: F.layer_norm(x, (3, 4)),
    "batch": lambda x: F.batch_norm(x, None, None, weight, mean, True),
    "batch, of x": lambda x: F.batch_norm(x, None, None, x[0], x[1], True),
    "batch, evaluation": lambda x: F.batch_norm(x, mean, var, x[0], x[1]),
    "instance": lambda x: F.instance_norm(x.reshape(1, 3, 4), weight=weight[:3], bias=weight[:3]),
    "group": lambda x: F.group_norm(x, 2, weight, mean),
    "group, of x": lambda x: F.group_norm(x, 2, x[0], x[1]),
}
over_norms = pytest.mark.parametrize("name", NORMS)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(one, id=f"{k}-{one.node}", marks=pytest.mark.skipif(lacks(one.node), reason="older"))
        for k, one in enumerate(CASES)
        if one.node in {**FIRST, **SECOND} and all(arg.numel() for arg in one.args)
    ],
)
def test_values_are_those_of_pytorch(found: Case) -> None:
    """For every input, of one cotangent for each output, and of those that come alone."""
    argnums = tuple(range(len(found.args)))
    recorded = record("test", found.op, argnums, False, found.args, {})
    node = next(node for node in recorded.captured.tape.nodes if node.name in {**FIRST, **SECOND})
    slots = range(len(node.outputs) if node.name in SECOND else 1)
    needed = [k for k in range(len(node.inputs)) if node.needs(k)]
    with walking(recorded):
        for given in [[slot] for slot in slots] + [list(slots)]:
            cotangents = [s(*meta.shape) if slot in given else None for slot, meta in enumerate(node.outputs)]
            found_ = by_override(node, cotangents)
            expected = node.fn(*cotangents)
            for k in needed:
                zeros = torch.zeros(node.into(k).shape, dtype=torch.float64)
                a, b = (zeros if each[k] is None else each[k] for each in (found_, expected))
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["layer", "layer, plain", "layer, of x", "group", "group, of x"])
def test_kernels_take_rows(name) -> None:
    """Where no graph is recorded one call makes the values of PyTorch for all rows, whatever their strides."""
    own = Sampler(8)
    f, x = NORMS[name], own(3, 4)
    recorded = record("test", f, (0,), False, (x,), {})
    node = next(node for node in recorded.captured.tape.nodes if node.name in FIRST)
    rows = own(*node.shape, 5).movedim(-1, 0)
    with torch.no_grad():
        others = [None] * (len(node.outputs) - 1)
        expected = [node.fn(row, *others) for row in rows]
        with torch.profiler.profile() as seen:
            found = by_override(node, [rows, *others])
    for k in range(len(node.inputs)):
        if node.needs(k):
            torch.testing.assert_close(
                found[k], torch.stack([each[k] for each in expected]), rtol=1e-10, atol=1e-10
            )
    kernel = "aten::native_" + ("layer" if "layer" in name else "group") + "_norm_backward"
    assert [event.count for event in seen.key_averages() if event.key == kernel] == [1]


@pytest.mark.parametrize("given", [(1,), (2,), (1, 2), (0, 1), (0, 1, 2)])
def test_statistics_of_a_group_norm(given) -> None:
    """Where mean or scale have a cotangent the formula here is called: PyTorch drops one without the other."""
    f = lambda x: torch.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5)
    x = s(2, 4, 3)
    recorded = record("test", lambda x: list(map(f(x).__getitem__, given)), (0,), False, (x,), {})
    (node,) = recorded.captured.tape.nodes
    cotangents = [s(*meta.shape) if slot in given else None for slot, meta in enumerate(node.outputs)]
    with walking(recorded):
        found = call(node, cotangents)[0]
    weighed = lambda x: sum((f(x)[slot] * cotangents[slot]).sum() for slot in given)
    torch.testing.assert_close(found, finite_differences(weighed, x), rtol=1e-6, atol=1e-6)


def scalar(f):
    """A function of a tensor as one number, not linear in it."""
    return lambda x: (f(x).sin() * torch.arange(12.0, dtype=x.dtype).reshape(f(x).shape)).sum()


@over_norms
def test_three_derivatives(name) -> None:
    """Second and third ones equal differences of those before; PyTorch's third ones are wrong, row by row too."""
    f, x = scalar(NORMS[name]), s(3, 4)
    torch.testing.assert_close(hessian(f)(x), finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-5)
    third = jacrev(lambda x: hessian(f)(x).square().sum())(x)
    scale = third.abs().max()
    differenced = finite_differences(lambda x: hessian(f)(x).square().sum(), x)
    torch.testing.assert_close(third / scale, differenced / scale, rtol=1e-6, atol=1e-6)


def test_three_derivatives_of_one_large_row(monkeypatch) -> None:
    """A row that is not small goes by PyTorch's engine, but not where it would record the second backward."""
    monkeypatch.setattr("torchjac._accumulate.candidates.is_small", lambda *_: False)
    monkeypatch.setattr("torchjac._accumulate.engine_rows.is_small", lambda *_: False)
    slope = lambda x: jacrev(scalar(NORMS["layer"]))(x).square().sum()
    curve, x = (lambda x: jacrev(slope)(x).square().sum()), s(3, 4)
    found, differenced = jacrev(curve)(x), finite_differences(curve, x)
    torch.testing.assert_close(
        found / found.abs().max(), differenced / found.abs().max(), rtol=1e-6, atol=1e-6
    )


@over_norms
@pytest.mark.parametrize("way", ["structure", "rows"])
def test_derivatives_of_many_outputs(name, way, monkeypatch) -> None:
    """Where the first backward is recorded on a batch of cotangents."""
    force(monkeypatch, way)
    f, x = NORMS[name], s(3, 4)
    first = jacrev(f)
    torch.testing.assert_close(jacrev(first)(x), finite_differences(first, x), rtol=1e-6, atol=1e-6)


@over_norms
def test_inside_vmap(name) -> None:
    """A Hessian for each of a batch."""
    f, many = scalar(NORMS[name]), s(2, 3, 4)
    expected = torch.stack([hessian(f)(x) for x in many])
    torch.testing.assert_close(vmap(hessian(f))(many), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["layer", "batch", "instance"])
def test_rows_of_a_hessian_cost_one_call(name) -> None:
    """Of the second backward, whether structure is kept or dense rows are walked."""
    x = s(3, 4)
    for dense in (False, True):
        recorded = record("test", jacrev(scalar(NORMS[name])), 0, False, (x,), {})
        tape = recorded.captured.tape
        with walking(recorded):
            if dense:
                dense_rows(recorded.captured, recorded.inputs, None)
            else:
                accumulate(tape, recorded.shapes)
        assert [node.calls for node in tape.nodes if node.name in SECOND] == [1]


def test_a_batch_of_rows_is_kept_apart() -> None:
    """The Hessian of a sum over rows stores a square for each, 5 · 3²; where the scale is constant it is diagonal."""
    x = s(5, 3)
    for f, stored in [
        (lambda x: F.layer_norm(x, (3,), weight[:3], mean[:3]).sin().sum(), 45),
        (lambda x: F.batch_norm(x, mean[:3], var[:3]).sin().sum(), 15),
    ]:
        found = jacobian(jacrev(f))(x)
        assert found.stored == stored
        torch.testing.assert_close(found.to_dense(), finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_lower_precision(dtype, error) -> None:
    """Of a node in a lower precision the result has that precision, and what is between is not in half."""
    own = Sampler(1)  # in half precision the error depends on the numbers: the same whatever ran before
    g, x, w = (each.to(dtype) for each in (own(3, 4), own(3, 4), own(4)))
    gradient = layer_norm_backward(0, (4,))
    found = jacobian(gradient, argnums=(0, 1, 2))(g, x, w)
    expected = jacobian(gradient, argnums=(0, 1, 2))(g.double(), x.double(), w.double())
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.to_dense().double(), b.to_dense(), rtol=error, atol=error)
