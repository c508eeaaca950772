"""Every transform, under and inside every other, in every grad mode, of four kinds of functions.

What stands around a transform is checked by finite differences of the plain Jacobian, which torch.func gives right for
these functions; what it makes of the transforms around its own is not always (`linearize` of `jacrev` is zero, the
derivative of a Function's jvp is lost: torch 2.13).
"""

from contextlib import nullcontext

import pytest
import torch
from tests.versions import NEWEST
from torch.autograd import forward_ad
from torch.func import grad
from torch.nn import functional as F

import torchjac
from torchjac import jvp, linearize, vjp, vmap


class Cube(torch.autograd.Function):
    """x³ as a Function with all that a transform may ask of one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        """The cube."""
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep x for both modes."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        """Reverse mode."""
        return 3 * ctx.saved_tensors[0] ** 2 * cotangent

    @staticmethod
    def jvp(ctx, tangent):
        """Forward mode."""
        return 3 * ctx.saved_tensors[0] ** 2 * tangent


SAME = torch.eye(3, dtype=torch.bool)
X, V, TARGET = torch.tensor([[0.3, 1.2, -0.7], [0.5, -0.2, 0.9], [0.2, 1.1, -0.4]], dtype=torch.float64)
BATCH, TANGENTS = torch.stack([X, V, X + V]), torch.stack([V, X, V])

FUNCTIONS = {
    "plain": lambda x: x.sin() * x.flip(0) * x.sum(),
    "loss": lambda x: F.mse_loss(x, TARGET) * F.huber_loss(x, TARGET),
    "norm at zero": lambda x: (x[:, None, None] - x[None, :, None]).norm(dim=-1).masked_fill(SAME, 1).pow(-1).sum(),
    "Function": lambda x: Cube.apply(x) * x.flip(0),
}  # fmt: skip


def _operator(f):
    """The Jacobian as an operator, written out."""
    return lambda x: torchjac.jacobian(f)(x).to_dense()


TRANSFORMS = {
    "jacrev": (torchjac.jacrev, torch.func.jacrev),
    "jacfwd": (torchjac.jacfwd, torch.func.jacrev),
    "jacobian": (_operator, torch.func.jacrev),
    "hessian": (torchjac.hessian, torch.func.hessian),
}


def _dual(J, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(J(forward_ad.make_dual(x, V))).tangent


def _pulled(J, x):
    value, pull = vjp(J, x)
    return pull(value.detach().cos())[0]


#: What stands around a transform, and the kind of derivative that it takes
AROUND = {
    "nothing": (lambda J, x: J(x), "value"),
    "vmap": (lambda J, _: vmap(J)(BATCH), "values"),
    "grad": (lambda J, x: grad(lambda x: J(x).sin().sum())(x), "gradient"),
    "vjp": (_pulled, "gradient"),
    "jvp": (lambda J, x: jvp(J, (x,), (V,))[1], "tangent"),
    "linearize": (lambda J, x: linearize(J, x)[1](V), "tangent"),
    "dual level": (_dual, "tangent"),
    "vmap of jvp": (lambda J, _: vmap(lambda x, v: jvp(J, (x,), (v,))[1])(BATCH, TANGENTS), "tangents"),
    "jvp of vmap": (lambda J, _: jvp(vmap(J), (BATCH,), (TANGENTS,))[1], "tangents"),
}

MODES = {
    "plain": (nullcontext, nullcontext),
    "no_grad around": (torch.no_grad, nullcontext),
    "inference_mode around": (torch.inference_mode, nullcontext),
    "no_grad inside": (nullcontext, torch.no_grad),
}

#: A dual level carries nothing on in inference mode, and linearize's own tracer fails there (torch 2.13)
NOT_IN_INFERENCE = ("linearize", "dual level")
#: A level of grad or jvp entered in inference mode records nothing: torch.func.grad of a sine is zero (torch 2.9)
NOT_AROUND_IN_THE_OLDEST = ("grad", "vjp", "jvp", "jvp of vmap", "vmap of jvp")


def _tangent(J, x, v, step=1e-5):
    return (J(x + step * v) - J(x - step * v)) / (2 * step)


def _expected(J, kind):
    """What a plain Jacobian gives under what stands around it, by finite differences."""
    if kind == "value":
        return J(X)
    if kind == "values":
        return torch.stack([J(x) for x in BATCH])
    if kind == "tangent":
        return _tangent(J, X, V)
    if kind == "tangents":
        return torch.stack([_tangent(J, x, v) for x, v in zip(BATCH, TANGENTS, strict=True)])
    return torch.stack([_tangent(lambda x: J(x).sin().sum(), X, e) for e in torch.eye(len(X), dtype=X.dtype)])


@pytest.fixture(scope="module")
def expected():
    """The expectation of a cell, found once for all modes."""
    found = {}

    def of(transform, name, kind):
        key = TRANSFORMS[transform][1], name, kind
        if key not in found:
            found[key] = _expected(key[0](FUNCTIONS[name]), kind)
        return found[key]

    return of


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_cell(transform, around, mode, name, expected) -> None:
    """Grad modes around a transform change nothing; one inside stops gradients, and tangents go on."""
    if mode.startswith("inference") and around in NOT_IN_INFERENCE:
        return
    outer, inner = MODES[mode]
    J = TRANSFORMS[transform][0](FUNCTIONS[name])

    def within(x):
        with inner():
            return J(x)

    apply, kind = AROUND[around]
    if mode == "inference_mode around" and around in NOT_AROUND_IN_THE_OLDEST and not NEWEST:
        with outer(), pytest.raises(RuntimeError, match=r"inference_mode and a transform|_make_dual"):
            apply(within, X)
        return
    with outer():
        found = apply(within, X)
    wanted = expected(transform, name, kind)
    if mode == "no_grad inside" and kind == "gradient":
        wanted = torch.zeros_like(wanted)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-6, atol=1e-6)


def test_a_cut_answer_is_recorded_for_nobody() -> None:
    """What keeps its tangent under no_grad asks for no gradient all the same."""
    x = X.clone().requires_grad_()
    with torch.no_grad():
        _, tangent = jvp(torchjac.jacrev(FUNCTIONS["plain"]), (x,), (V,))
        with forward_ad.dual_level():
            primal, _ = forward_ad.unpack_dual(
                torchjac.jacrev(FUNCTIONS["plain"])(forward_ad.make_dual(x, V))
            )
    assert not tangent.requires_grad
    assert not primal.requires_grad
