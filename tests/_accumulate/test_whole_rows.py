"""Functions whose backward is not linear: called on the cotangents of rows, whole, whatever the way to the answer."""

import pytest
import torch
from tests.ways import WAYS
from torch.autograd import Function

from torchjac import extend, hessian, jacfwd, jacobian, jacrev, vmap
from torchjac._accumulate import seeds
from torchjac.testing import loop_jacobian

D = torch.float64


class Clipped(Function):
    """The identity, with a gradient of norm 0.3 at most."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g * (0.3 / (g.square().sum() + 1e-30).sqrt()).clamp(max=1)


class ClippedAlone(Clipped):
    """The identity, with each entry of the gradient clipped."""

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-0.5, 0.5)


class Both(Function):
    """Two identities whose gradients are clipped by the norm of both, and a number that is no tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return x.clone(), y.clone(), 3

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g, h, _):
        factor = (0.3 / (g.square().sum() + h.square().sum() + 1e-30).sqrt()).clamp(max=1)
        return g * factor, h * factor


class Old(Function):
    """A Function without setup_context whose backward leaves PyTorch."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(g.numpy().clip(-0.5, 0.5))


PROGRAMS = {
    "few inputs": (3, lambda c, x: (c(x.sin()) @ torch.linspace(-1, 1, 300, dtype=D).reshape(3, 100)).sin()),
    "one input": (1, lambda c, x: (c(x.sin()) * torch.linspace(-1, 1, 400, dtype=D)).sin()),
    "bottleneck": (
        100,
        lambda c, x: (c(c(x).reshape(2, 50).sum(1)) @ torch.linspace(-1, 1, 200, dtype=D).reshape(2, 100)).sin(),
    ),
    "diagonal": (60, lambda c, x: c(x.sin() * 3) * 2),
    "two blocks meet": (30, lambda c, x: (lambda y: 2 * y + y.flip(0))(c(x))),
    "two calls": (30, lambda c, x: 2 * c(x) + c(x).flip(0)),
    "two paths": (5, lambda c, x: (lambda y: y @ torch.ones(5, 60, dtype=D) + y.repeat(12) * x[0])(c(x))),
    "summed by an index": (
        12, lambda c, x: torch.zeros(4, dtype=D).index_add(0, torch.arange(12) // 3, c(x.sin()))
    ),
    "windows": (12, lambda c, x: c(x.sin()).unfold(0, 3, 1).sum(1)),
    "broadcast": (4, lambda c, x: c(x).expand(30, 4) * 2 + x[0]),
    "both": (
        6, lambda c, x: (lambda y, z, _: (y.outer(z) * 2).flatten() + x[0])(*Both.apply(c(x[:2]), c(x[2:])))
    ),
    "both, one of the other": (6, lambda c, x: (lambda y, z, _: y * z)(*Both.apply(x, c(x.cos())))),
    "nothing": (0, lambda c, x: c(x) * 2),
    "one number": (1, lambda c, x: c(x) * 2),
}  # fmt: skip

CASES = [
    *[(Clipped, name, way) for name in PROGRAMS for way in WAYS],
    *[(function, name, way) for function in (ClippedAlone, Old) for name in ("few inputs", "diagonal", "two paths")
      for way in WAYS],
]  # fmt: skip


@pytest.mark.parametrize("function, name, way", CASES)
def test_rows(function, name, way) -> None:
    """Each row is what the loop gives, at several calls in a row."""
    size, program = PROGRAMS[name]
    f = lambda x: program(function.apply, x)
    call = WAYS[way](f)
    for _ in range(3):
        x = torch.randn(size, dtype=D)
        expected = loop_jacobian(f, x)
        torch.testing.assert_close(call(x).reshape(expected.shape), expected)


@pytest.mark.parametrize("name", PROGRAMS)
def test_samples(name) -> None:
    """Inside vmap each sample has cotangents of its own."""
    size, program = PROGRAMS[name]
    f = lambda x: program(Clipped.apply, x)
    xs = torch.randn(3, size, dtype=D)
    expected = torch.stack([loop_jacobian(f, x) for x in xs])
    for way in (jacrev, jacfwd, lambda f: lambda x: jacobian(f)(x).to_dense()):
        torch.testing.assert_close(vmap(way(f))(xs), expected)


def test_twice() -> None:
    """A second derivative takes the rows of the first one whole, too."""
    f = lambda x: (ClippedAlone.apply(x.sin() * 3).cumsum(0) ** 2).sum()
    x = torch.randn(4, dtype=D)
    gradient = lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0]
    torch.testing.assert_close(hessian(f)(x), loop_jacobian(gradient, x))


def test_another_function_of_the_same_name() -> None:
    """What was estimated with a rule for one Function is not done with another one that has none."""

    def named(clips: bool) -> type[Function]:
        class Named(Clipped):
            @staticmethod
            def backward(ctx, g):
                return g.clamp(-0.5, 0.5) if clips else g.clone()

        return Named

    ruled, other = named(False), named(True)
    extend.rule(ruled)(lambda node: [extend.local(node, 0, "i", "i")])
    try:
        weight = torch.linspace(-1, 1, 1500, dtype=D).reshape(3, 500)
        for function in (ruled, other):
            f = lambda x, function=function: (function.apply(x.sin()) @ weight).sin()
            x = torch.randn(3, dtype=D)
            for way in (
                jacrev,
                lambda f: jacrev(f, chunk_size=3),
                lambda f: lambda x: jacobian(f)(x).to_dense(),
            ):
                for _ in range(4):
                    torch.testing.assert_close(way(f)(x), loop_jacobian(f, x))
    finally:
        extend.unregister(ruled)


def test_a_rule_says_that_a_backward_is_linear(monkeypatch) -> None:
    """With a rule, though one that names no dims, a Function is called for its own few outputs and not for all rows."""

    class Doubled(Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    counts, original = [], seeds.call_rows
    monkeypatch.setattr(
        seeds, "call_rows", lambda node, slot, rows, *rest: (
            counts.append(len(rows)) or original(node, slot, rows, *rest)
        )
    )  # fmt: skip
    weight = torch.rand(2, 100, dtype=D)
    f = lambda x: (Doubled.apply(x.reshape(2, 50).sum(1)) @ weight).sin()
    x = torch.randn(100, dtype=D)
    jacobian(f, mode="reverse")(x)
    extend.rule(Doubled)(lambda node: extend.LocalJacobian(batch_dims={0: ()}))
    try:
        J = jacobian(f, mode="reverse")(x)
    finally:
        extend.unregister(Doubled)
    assert counts == [100, 2]
    torch.testing.assert_close(J.to_dense(), loop_jacobian(f, x))
