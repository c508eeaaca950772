"""Backward formulas that can be differentiated: PyTorch's values, and second derivatives where PyTorch has 0 · ∞."""

import math
import warnings

import pytest
import torch
from tests._rules.cases import Sampler
from tests.fixtures import double as double

from torchjac import hessian, jacfwd, jacobian, jacrev, vmap
from torchjac._accumulate.candidates import Candidate
from torchjac._rules.backward_overrides import by_override, has_override
from torchjac._transforms.call_function import record, walking
from torchjac.testing import finite_differences, loop_jacobian

F = torch.nn.functional
s = Sampler(3)
full, other, weights = s(4, 3), s(4, 3), s(4, 3)
zeros = torch.zeros(4, 3, dtype=torch.float64)
zeros[0] = torch.tensor([1.0, 0.0, -2.0])
same = torch.eye(4, dtype=torch.bool)


def norm(p):
    """A weighted sum of the norms of rows."""
    return lambda x: (torch.linalg.vector_norm(x, p, -1) * weights[:, 0]).sum()


#: Functions, and a place where something that their gradient divides by is zero
AT_ZERO = {
    "norm": (norm(2), zeros),
    "norm of order 3": (norm(3), zeros),
    "norm of order -2": (norm(-2), 0 * zeros),
    "norm of all": (torch.linalg.vector_norm, 0 * zeros),
    "norm of a matrix": (torch.linalg.matrix_norm, 0 * zeros),
    "norm kept": (lambda x: (x / x.norm(dim=0, keepdim=True).clamp_min(1)).square().sum(), 0 * zeros),
    "norm of a number": (lambda x: x.norm(), 0 * zeros[0, 0]),
    "masked": (
        lambda x: (x[:, None] - x[None]).norm(dim=-1).masked_fill(same, 1.0).pow(-6).sum(),
        full,
    ),
    "dist": (lambda x: torch.dist(x, x.detach()), full),
    "dist from": (lambda x: torch.dist(x.detach(), x, 3), full),
    "pairwise_distance": (lambda x: F.pairwise_distance(x, x.detach(), eps=0).sum(), full),
    "normalize": (lambda x: (F.normalize(x, dim=-1) * weights).sum(), zeros),
    "cosine_similarity": (lambda x: F.cosine_similarity(x, weights).sum(), zeros),
    "renorm": (lambda x: (weights * torch.renorm(x, 2, 0, 0.5)).sum(), zeros),
    "pow": (lambda x: x.pow(torch.zeros(3)).sum(), zeros),
    "pow of 0": (lambda x: torch.pow(0.0, x).sum(), zeros.abs()),
    "atan2": (lambda x: (torch.atan2(x, 2 * x) * weights).sum(), zeros),
    "angle": (lambda x: torch.complex(x, 2 * x).angle().sum(), zeros),
    "sgn": (lambda x: (torch.sgn(torch.complex(x, x.flip(0))).real * weights).sum(), zeros * 0),
    "copysign": (lambda x: (torch.copysign(x, other) * weights).sum(), zeros),
    "copysign of a number": (lambda x: (torch.copysign(x, -1.0) * weights).sum(), zeros),
    "logit": (lambda x: (torch.logit(x, 0.2) * weights).sum(), zeros),
}


def _structured(f):
    return lambda x: jacobian(jacrev(f))(x).to_dense()


@pytest.mark.parametrize(
    "order", [hessian, _structured, lambda f: jacfwd(jacrev(f)), lambda f: jacrev(jacfwd(f))]
)
@pytest.mark.parametrize("name", AT_ZERO)
def test_finite_at_zero(name, order):
    """The Hessian has a number wherever forward over reverse has one, and the same, in whatever order it is taken."""
    f, x = AT_ZERO[name]
    expected = torch.func.hessian(f)(x)
    assert expected.isfinite().all()
    torch.testing.assert_close(order(f)(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(vmap(order(f))(torch.stack([x, x]))[1], expected, rtol=1e-9, atol=1e-9)


#: What has a formula here, as functions of tensors, where nothing is zero
ELSEWHERE = {
    "norm": (lambda x: torch.linalg.vector_norm(x, 2, 0), full),
    "norm of order 1.5": (lambda x: torch.linalg.vector_norm(x, 1.5, (0, 1)), full),
    "norm of order 1": (lambda x: torch.linalg.vector_norm(x, 1, 1), full),
    "largest": (lambda x: torch.linalg.vector_norm(x, math.inf, 1), full),
    "smallest": (lambda x: torch.linalg.vector_norm(x, -math.inf, (0, 1)), full),
    "abs": (torch.abs, full),
    "norm of complex numbers": (lambda x: torch.linalg.vector_norm(torch.complex(x, other), 2, 1), full),
    "dist": (lambda x: torch.dist(x, other.flip(0) * x), full),
    "renorm": (lambda x: torch.renorm(x, 2, 1, 1.5), full),
    "sinc": (torch.sinc, full),
    "pow": (lambda x: x.abs() ** (x + other), full),
    "pow broadcast": (lambda x: x.abs() ** x[:1], full),
    "pow of a negative": (lambda x: x ** torch.tensor([2.0, 3.0, 0.0]), full),
    "pow of a number": (lambda x: 3.0**x, full),
    "pow of 0": (lambda x: 0.0 ** x.abs(), full),
    "atan2": (lambda x: torch.atan2(x, x[:1] - other), full),
    "angle": (lambda x: torch.complex(x, other).angle(), full),
    "angle of a real": (torch.angle, full),
    "sgn": (lambda x: torch.view_as_real(torch.sgn(torch.complex(x, other))), full),
    "copysign": (lambda x: torch.copysign(x, other), full),
    "copysign by another": (lambda x: torch.copysign(other, x) * x, full),
    "logit": (lambda x: torch.logit(x, 0.1), s.inside(4, 3)),
    "logit without bounds": (torch.logit, s.inside(4, 3)),
    "mse_loss": (lambda x: F.mse_loss(x, x.flip(0) * other), full),
    "mse_loss of each": (lambda x: F.mse_loss(other, x, reduction="none"), full),
    "huber_loss": (lambda x: F.huber_loss(x, other, delta=0.7), full),
    "huber_loss summed": (lambda x: F.huber_loss(other, x, reduction="sum"), full),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_values_are_those_of_pytorch(name):
    """Where nothing is zero, a formula gives what PyTorch's does, of one cotangent and of rows of them."""
    f, x = ELSEWHERE[name]
    recorded = record("test", f, 0, False, (x,), {})
    nodes = [node for node in recorded.captured.tape.nodes if has_override(node.name)]
    assert nodes
    with walking(recorded):
        for node in nodes:
            rows = s(2, *node.shape).to(node.outputs[0].dtype)
            found = by_override(node, [rows])
            for one, row in enumerate(rows):
                theirs, alone = node.fn(row), by_override(node, [row])
                theirs = theirs if isinstance(theirs, tuple) else (theirs,)
                for at, expected in enumerate(theirs):
                    if found is None or not node.needs(at) or found[at] is None:
                        continue
                    shape = node.into(at).shape
                    torch.testing.assert_close(alone[at].sum_to_size(shape), expected.sum_to_size(shape))
                    torch.testing.assert_close(
                        found[at][one].sum_to_size(shape), alone[at].sum_to_size(shape)
                    )


@pytest.mark.parametrize("order", [hessian, _structured])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_second_derivatives(name, order):
    """The Hessian of a weighted sum is what finite differences of the gradient say."""
    f, x = ELSEWHERE[name]
    g = lambda x: (f(x) * s_weights(f(x))).sum()
    torch.testing.assert_close(order(g)(x), finite_differences(jacrev(g), x), rtol=1e-5, atol=1e-5)


def s_weights(like):
    """Fixed weights that differ from entry to entry."""
    return torch.linspace(0.5, 1.5, max(like.numel(), 1), dtype=like.dtype)[: like.numel()].reshape(
        like.shape
    )


def test_sinc_near_zero():
    """sinc″ = π² (−1/3 + t²/10 − t⁴/168 + …) with t = πx, where the derivative of PyTorch's own formula is 0 at 0."""
    x = torch.tensor([0.0, 1e-8, -0.005, 0.0095, 0.0096, 0.02])
    t = math.pi * x
    expected = math.pi**2 * (-1 / 3 + t**2 / 10 - t**4 / 168 + t**6 / 6480)
    torch.testing.assert_close(
        hessian(lambda x: torch.sinc(x).sum())(x).diagonal(), expected, rtol=1e-9, atol=0
    )


def test_mixed_derivative_of_a_power():
    """∂²(xᵉ)/∂x∂e = 1/x at e = 0, which PyTorch's mask drops."""
    x, e = torch.tensor(2.0), torch.tensor(0.0)
    mixed = jacrev(jacrev(lambda x, e: x**e), argnums=1)(x, e)
    assert mixed.item() == pytest.approx(0.5)


@pytest.mark.parametrize("loss", ["mse_loss", "huber_loss"])
def test_losses_in_forward_mode(loss):
    """A forward mode goes through the gradient of a loss, of which PyTorch 2.13 has no tangent."""
    x, y = s(3), s(3)
    f = lambda x: getattr(F, loss)(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.func.jacfwd(jacrev(f))(x)
    torch.testing.assert_close(found, finite_differences(jacrev(f), x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [math.inf, -math.inf])
def test_equal_ones_share_a_norm(p):
    """The gradient of the largest entry, or of the smallest, is shared among equal ones, as in PyTorch."""
    x = torch.tensor(
        [[1.0, -2.0, 2.0], [0.5, -0.5, 0.5], [0.0, 0.0, 0.0], [3.0, -1.0, 2.0]], requires_grad=True
    )
    f = lambda x: torch.linalg.vector_norm(x, p, 1)
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


@pytest.mark.parametrize("way", ["rows", "reverse"])
@pytest.mark.parametrize(
    "f",
    [
        torch.abs,
        lambda y: F.l1_loss(y, torch.zeros_like(y), reduction="none"),
        lambda y: torch.linalg.vector_norm(y, 1, -1),
        lambda y: torch.linalg.vector_norm(y, math.inf, -1),
        lambda y: torch.renorm(y, 1, 0, 0.1),
        lambda y: torch.copysign(y, -1.0),
    ],
    ids=["abs", "l1_loss", "norm 1", "norm inf", "renorm", "copysign"],
)
def test_signs_carry_no_graph(f, way, monkeypatch):
    """PyTorch's backward of a sign makes a tensor without memory, that of a group norm reads it (2.9-2.13)."""
    monkeypatch.setattr("torchjac._transforms.dense.candidates", lambda *_: [Candidate(way)])
    weight = torch.tensor([1.5, -0.5], requires_grad=True)
    normed = lambda x: f(F.group_norm(x, 2, weight))
    x = s(2, 2, 4)
    found = jacrev(normed)(x)
    names, left = set(), [found.grad_fn]
    while left:
        node = left.pop()
        names.add(node.name())
        left += [below for below, _ in node.next_functions if below is not None]
    assert names.isdisjoint({"SgnBackward0", "SignBackward0"})
    expected = finite_differences(
        lambda w: jacrev(lambda x: f(F.group_norm(x, 2, w)))(x).square().sum(), weight.detach()
    )
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), weight)[0], expected, rtol=1e-6, atol=1e-6
    )
