"""Normalisations: weight and bias explicit, the input by seeds along what is normalised."""

from types import SimpleNamespace

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases
from tests.conformance.walks import forced
from tests.forced import force

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap
from torchjac._accumulate import seeds
from torchjac._rules.normalise import _over_rms
from torchjac.testing import finite_differences

s = Sampler()
F = torch.nn.functional
aten = torch.ops.aten
mean, var = s(3), s.positive(3)


def independent(node, op, *args, **claims):
    """A case of a node that needs seeds."""
    return case(node, op, *args, note="independent", **claims)


def layer_norm_backward(slot, over):
    """One of the three gradients of a layer norm, as an op of g, x and w; mean and scale are those of x."""

    def gradient(g, x, w):
        _, *statistics = aten.native_layer_norm(x.detach(), over, None, None, 1e-5)
        return aten.native_layer_norm_backward(g, x, over, *statistics, w, w.detach(), [True] * 3)[slot]

    return gradient


def batch_norm_backward(slot, training):
    """One of the three gradients of a batch norm, as an op of g, x and w."""

    def gradient(g, x, w):
        known = (None, None) if training else (mean, var)
        _, *saved = aten.native_batch_norm(x.detach(), None, None, *known, training, 0.1, 1e-5)
        return aten.native_batch_norm_backward(g, x, w, *known, *saved, training, 1e-5, [True] * 3)[slot]

    return gradient


def updating_batch_norm_backward(g, x, w):
    """The gradient for x of a batch norm that updates its statistics."""
    known = mean.clone(), var.clone()
    _, *saved, reserve = aten._batch_norm_with_update(x.detach(), None, None, *known, 0.1, 1e-5)
    return aten.batch_norm_backward(g, x, w, *known, *saved, True, 1e-5, [True] * 3, reserve)[0]


CASES = [
    independent(
        "NativeLayerNormBackward0",
        lambda x, w, b: F.layer_norm(x, (3,), w, b),
        s(2, 3),
        s(3),
        s(3),
        stored=[18, 6, 0],
    ),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (3, 2)), s(4, 3, 2), stored=[144]),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (3,)), s(3), stored=[9]),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (1,)), s(2, 1), stored=[2]),
    case(
        "NativeLayerNormBackward0",
        lambda w, b: F.layer_norm(torch.arange(6.0, dtype=w.dtype).view(2, 3), (3,), w, b),
        s(3),
        s(3),
        stored=[6, 0],
    ),
    case(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean, var, w, b),
        s(4, 3),
        s(3),
        s(3),
        stored=[3, 12, 0],
    ),
    case(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean, var, w, b),
        s(2, 3, 1, 2),
        s(3),
        s(3),
        stored=[3, 12, 0],
        calls=0,
    ),
    independent(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean.clone(), var.clone(), w, b, True),
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent(
        "NativeBatchNormBackward0",
        lambda x: F.batch_norm(x, None, None, training=True),
        s(2, 3, 2),
        stored=[48],
    ),
    independent(
        "NativeBatchNormLegitBackward0",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, mean.clone(), var.clone(), True, 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    case(
        "NativeBatchNormLegitBackward0",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, mean, var, False, 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[3, 12, 0],
    ),
    independent(
        "NativeBatchNormLegitBackward1",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, True, 0.1, 1e-5)[0],
        s(2, 3, 2),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent(
        "BatchNormWithUpdateBackward0",
        lambda x, w, b: aten._batch_norm_with_update(x, w, b, mean.clone(), var.clone(), 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent("NativeBatchNormBackward0", F.instance_norm, s(2, 3, 4), stored=[96]),
    case(
        "NativeGroupNormBackward0",
        lambda x, w, b: F.group_norm(x, 2, w, b),
        s(3, 4, 2),
        s(4),
        s(4),
        stored=[96, 24, 0],
    ),
    case("NativeGroupNormBackward0", lambda x: F.group_norm(x, 3), s(2, 3, 2, 1), stored=[24]),
    case("NativeGroupNormBackward0", lambda x: F.group_norm(x, 1), s(2, 3), stored=[18]),
    case("NativeGroupNormBackward0", lambda x: F.group_norm(x, 2), s(0, 4, 3)),
    *(
        independent("NativeLayerNormBackwardBackward0", layer_norm_backward(0, over), *args, stored=stored)
        for over, args, stored in [
            ((3,), (s(4, 3), s(4, 3), s(3)), [36, 36, 36]),
            ((3, 2), (s(4, 3, 2), s(4, 3, 2), s(3, 2)), [144, 144, 144]),
            ((3,), (s(3), s(3), s(3)), [9, 9, 9]),
            ((1,), (s(2, 1), s(2, 1), s(1)), [2, 2, 2]),
            ((3,), (s(0, 3), s(0, 3), s(3)), [0, 0, 0]),
        ]
    ),
    independent(
        "NativeLayerNormBackwardBackward0",
        layer_norm_backward(1, (3,)), s(4, 3), s(4, 3), s(3), stored=[12, 36, 0],
    ),
    case(
        "NativeLayerNormBackwardBackward0",
        lambda g: layer_norm_backward(2, (3,))(g, torch.ones_like(g), torch.ones(3, dtype=g.dtype)),
        s(4, 3), stored=[0],
    ),
    *(
        independent("NativeBatchNormBackwardBackward0", batch_norm_backward(0, True), *args, stored=stored)
        for args, stored in [
            ((s(4, 3), s(4, 3), s(3)), [48, 48, 12]),
            ((s(4, 3, 2), s(4, 3, 2), s(3)), [192, 192, 24]),
            ((s(2, 1, 1), s(2, 1, 1), s(1)), [4, 4, 2]),
        ]
    ),
    case(
        "NativeBatchNormBackwardBackward0",
        batch_norm_backward(1, True), s(4, 3), s(4, 3), s(3), stored=[12, 12, 0], note="independent", calls=0,
    ),
    *(
        case("NativeBatchNormBackwardBackward0", batch_norm_backward(slot, False), *args, stored=stored, calls=0)
        for slot, args, stored in [
            (0, (s(4, 3, 2), s(4, 3, 2), s(3)), [3, 0, 24]),
            (1, (s(4, 3), s(4, 3), s(3)), [12, 12, 0]),
            (2, (s(4, 3), s(4, 3), s(3)), [0, 0, 0]),
        ]
    ),
    independent(
        "BatchNormBackwardBackward0",
        updating_batch_norm_backward, s(4, 3, 2), s(4, 3, 2), s(3), stored=[192, 192, 24],
    ),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_groups_do_not_mix(mode: str) -> None:
    """Six channels of five numbers in three groups: ten by ten for each group of each sample, and so twice nested."""
    f = lambda x: F.group_norm(x, 3, s.positive(6) * 0 + 2)
    x = s(2, 6, 5)
    assert jacobian(f, mode=mode)(x).nnz == 2 * 3 * 100
    hessian_of = jacobian(jacrev(lambda x: f(x).pow(3).sum()), mode=mode)(x)
    expected = finite_differences(jacrev(lambda x: f(x).pow(3).sum()), x)
    torch.testing.assert_close(hessian_of.to_dense(), expected, rtol=1e-5, atol=1e-5)
    twice = jacrev(lambda x: jacobian(f)(x).to_dense().sum(0))(x)
    expected = finite_differences(lambda x: jacobian(f)(x).to_dense().sum(0), x)
    torch.testing.assert_close(twice, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("walk", ["auto", "structure", "rows", "columns", "planned"])
@pytest.mark.parametrize("slot", [1, 2])
def test_group_norm_statistics(slot: int, walk: str) -> None:
    """Mean and scale depend on x too, also where the output itself is not used (PyTorch drops that), in every way."""
    f = lambda x: torch.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5)[slot]
    x = s(2, 4, 3)
    expected = finite_differences(f, x)
    assert expected.abs().sum() > 0.5
    weighed = lambda x: (f(x).square() * torch.arange(4.0, dtype=x.dtype).view(2, 2)).sum()
    twice = finite_differences(jacrev(weighed), x)
    with forced(walk):
        for found in (jacobian(f)(x).to_dense(), jacrev(f)(x), jacfwd(f)(x), vmap(jacrev(f))(x[None])[0]):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(hessian(weighed)(x), twice, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("walk", ["auto", "structure", "rows", "planned"])
def test_group_norm_of_another_shape(walk: str) -> None:
    """What the op is told of samples and channels holds; its input may be of any shape of as many entries."""
    weight = s(4)
    f = lambda x: torch.native_group_norm(x, weight, None, 2, 4, 3, 2, 1e-5)[0]
    x = s(1, 8, 3)
    with forced(walk):
        torch.testing.assert_close(jacrev(f)(x), finite_differences(f, x), rtol=1e-6, atol=1e-6)


def test_group_norm_statistics_beside_what_cannot_be_batched() -> None:
    """Where rows would go one by one, they go by structure: PyTorch's engine would drop the mean."""

    def f(x: torch.Tensor) -> torch.Tensor:
        out, mean, _ = torch.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5)
        return torch.cdist(out[0], out[1]).sum() * mean

    x = s(2, 4, 3)
    torch.testing.assert_close(jacrev(f)(x), finite_differences(f, x), rtol=1e-6, atol=1e-6)


@over_cases(CASES)
def test_normalisation(one: Case) -> None:
    """The batch multiplies what is stored once, not twice; weight and bias cost no seeds."""
    check(one)


RECORDED = {
    "layer": lambda x, w: F.layer_norm(x, (4,), w),
    "batch": lambda x, w: F.batch_norm(x, None, None, w, training=True),
    "group": lambda x, w: F.group_norm(x, 2, w),
}


@pytest.mark.parametrize("op", RECORDED.values(), ids=RECORDED)
def test_weight_is_explicit_where_recorded(op, monkeypatch) -> None:
    """Where gradients of it are asked for, the Jacobian by the weight takes no call; they are the loop's."""
    force(monkeypatch, "structure")
    x, w = s(7, 4).requires_grad_(), s(4)
    calls = []
    original = seeds.call_rows
    monkeypatch.setattr(seeds, "call_rows", lambda *args: calls.append(args) or original(*args))
    found = jacrev(lambda w: op(x.sin(), w))(w)
    assert not calls
    (gradient,) = torch.autograd.grad((found * torch.arange(found.numel()).view(found.shape)).sum(), x)
    v = w.clone().requires_grad_()
    rows = [torch.autograd.grad(part, v, create_graph=True)[0] for part in op(x.sin(), v).flatten()]
    loop = torch.stack(rows).view(found.shape)
    (expected,) = torch.autograd.grad((loop * torch.arange(found.numel()).view(found.shape)).sum(), x)
    torch.testing.assert_close(found, loop)
    torch.testing.assert_close(gradient, expected)


def test_root_mean_square_has_a_graph() -> None:
    """What a fused RMS norm saved is made from x again where a graph is recorded, with its derivative by x."""
    x = s(3, 4).requires_grad_()
    saved = {
        "input": x,
        "result1": (x.detach().square().mean(-1, keepdim=True) + 1e-3).rsqrt(),
        "normalized_shape": (4,),
    }
    node = SimpleNamespace(saved=saved.__getitem__)
    found, expected = _over_rms(node), F.rms_norm(x, (4,), eps=1e-3)
    torch.testing.assert_close(found, expected)
    weight = s(3, 4)
    torch.testing.assert_close(*[torch.autograd.grad((weight * y).sum(), x)[0] for y in (found, expected)])
    with torch.no_grad():
        torch.testing.assert_close(_over_rms(node), expected)
