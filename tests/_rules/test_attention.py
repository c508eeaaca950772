"""Fused attention written anew: the values of PyTorch, and the second derivatives that its own formula lacks."""

import pytest
import torch
from tests._rules.cases import Sampler
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac._accumulate.planned import PROGRAMS
from torchjac._rules.attention import FUSED
from torchjac._rules.backward_overrides import by_override
from torchjac._transforms.call_function import record, walking
from torchjac.testing import finite_differences, loop_jacobian

F = torch.nn.functional
s = Sampler(7)
mask = s(3, 5)
mask[1] = -torch.inf  # a row that sees nothing
seen = torch.tensor([[True, False, True, True, False]] * 3)

#: Arguments of attention, and the shapes of q, k and v
CALLS = {
    "plain": ({}, (2, 2, 3, 4), (2, 2, 5, 4)),
    "scaled": ({"scale": 0.3}, (1, 1, 3, 2), (1, 1, 5, 2)),
    "causal": ({"is_causal": True}, (1, 2, 3, 4), (1, 2, 3, 4)),
    "causal, fewer rows": ({"is_causal": True}, (1, 2, 3, 4), (1, 2, 5, 4)),
    "mask": ({"attn_mask": mask}, (1, 2, 3, 4), (1, 2, 5, 4)),
    "mask of places": ({"attn_mask": seen}, (2, 1, 3, 4), (2, 1, 5, 4)),
    "mask of heads": ({"attn_mask": s(2, 2, 3, 5)}, (2, 2, 3, 4), (2, 2, 5, 4)),
    "mask of one head": ({"attn_mask": s(2, 1, 3, 5)}, (2, 2, 3, 4), (2, 2, 5, 4)),
    "shared heads": ({"enable_gqa": True}, (1, 4, 3, 4), (1, 2, 5, 4)),
    "one of each": ({}, (1, 1, 1, 1), (1, 1, 1, 1)),
}
over_calls = pytest.mark.parametrize("name", CALLS)


def attention(name):
    """Attention as a function of q, k and v, and such."""
    options, query, key = CALLS[name]
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), (s(*query), s(*key), s(*key))


def scalar(f):
    """A function of one tensor, from one of three."""
    return lambda *args: f(*args).sin().sum()


@over_calls
@pytest.mark.parametrize("records", [True, False])
def test_values_are_those_of_pytorch(name, records):
    """For q, k and v, whatever is masked, on its own and with rows in front, of any strides; with a graph or not."""
    f, args = attention(name)
    recorded = record("test", f, (0, 1, 2), False, args, {})
    node = next(node for node in recorded.captured.tape.nodes if node.name == FUSED)
    with walking(recorded), torch.set_grad_enabled(records):
        rows = s(*node.shape, 3).movedim(-1, 0)
        expected = [node.fn(row) for row in rows]
        for k, found in enumerate(by_override(node, [rows])):
            torch.testing.assert_close(
                found, torch.stack([each[k] for each in expected]), rtol=1e-10, atol=1e-10
            )
            alone = by_override(node, [rows[0]])[k]
            torch.testing.assert_close(alone, expected[0][k], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("count, calls", [(3, 1), (100, 0)])
def test_rows_cost_one_call(count, calls):
    """Where no graph is recorded, PyTorch's kernel takes rows as more samples; not for very many of a few numbers."""
    f, args = attention("mask of heads")
    recorded = record("test", f, (0, 1, 2), False, args, {})
    node = next(node for node in recorded.captured.tape.nodes if node.name == FUSED)
    with torch.no_grad(), torch.profiler.profile() as seen:
        by_override(node, [s(count, *node.shape)])
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts.get("aten::_scaled_dot_product_flash_attention_for_cpu_backward", 0) == calls
    assert ("aten::bmm" in counts) is not bool(calls)


@over_calls
def test_hessian(name):
    """Each of nine equals that of attention made of products, by the loop; structured, dense and under vmap."""
    f, args = attention(name)
    for k in range(3):
        slope = jacrev(scalar(f), k)
        with sdpa_kernel(SDPBackend.MATH):
            expected = [loop_jacobian(slope, *args, argnum=j) for j in range(3)]
        for found in (
            jacrev(slope, (0, 1, 2))(*args),
            [J.to_dense() for J in jacobian(slope, (0, 1, 2))(*args)],
        ):
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    many = [torch.stack([arg, -arg]) for arg in args]
    found = vmap(hessian(scalar(f)))(*many)
    alone = torch.stack([hessian(scalar(f))(*each) for each in zip(*many, strict=True)])
    torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-9)


def test_transformer_layer():
    """The Hessian of a layer whose weights are trained; what is found has a graph to them."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        4, 2, 8, dropout=0.0, batch_first=True, activation="gelu"
    ).double()
    f = lambda x: layer(x).sin().sum()
    x = s(1, 3, 4)
    found = hessian(f)(x)
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)


def test_hessian_of_a_large_row(monkeypatch):
    """A row that is not small goes by PyTorch's engine elsewhere, which has no derivative here."""
    f, args = attention("plain")
    expected = hessian(scalar(f))(*args)
    monkeypatch.setattr("torchjac._accumulate.candidates.is_small", lambda *_: False)
    monkeypatch.setattr("torchjac._accumulate.engine_rows.is_small", lambda *_: False)
    torch.testing.assert_close(hessian(scalar(f))(*args), expected, rtol=1e-9, atol=1e-9)


def test_third_derivative():
    """What is written anew can be differentiated again."""
    f, (q, k, v) = attention("causal")
    curve = lambda q: hessian(scalar(f))(q, k, v).square().sum()
    torch.testing.assert_close(jacrev(curve)(q), finite_differences(curve, q), rtol=1e-6, atol=1e-6)


def test_half_precision():
    """The result is in half precision, what is between is not."""
    f, args = attention("plain")
    args = [arg.bfloat16() for arg in args]
    found, expected = hessian(scalar(f))(*args), hessian(scalar(f))(*[arg.double() for arg in args])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=5e-2, atol=5e-2)


def test_rows_go_through_attention_that_is_recorded_too() -> None:
    """PyTorch's formula has no derivative, ours has: so rows are a candidate where parameters require grad."""
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    f = lambda x: attention(x, x, x, need_weights=False)[0]
    x, weight = torch.randn(1, 6, 8, dtype=torch.float64), attention.in_proj_weight
    expected = loop_jacobian(f, x)
    for _ in range(12):
        found = jacrev(f)(x)
        torch.testing.assert_close(found, expected)
    (entry,) = PROGRAMS.entries.values()
    assert entry.best.name == "rows"
    (slope,) = torch.autograd.grad(found.square().sum(), weight)
    step = 1e-5 * torch.randn(weight.shape, dtype=torch.float64)
    ends = []
    for moved in (weight.detach() + step, weight.detach() - step):
        weight.data.copy_(moved)
        ends.append(loop_jacobian(f, x).square().sum())
    torch.testing.assert_close((slope * step).sum(), (ends[0] - ends[1]) / 2, rtol=1e-6, atol=1e-12)
