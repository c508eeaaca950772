"""Writes that do more than move entries: the graph of the node's own call is composed of local Jacobians."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases
from tests._rules.test_probe import COPY, across, written
from tests._rules.test_view_assignment import LEVELS, walk_at
from torch.func import grad

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import check_rule, loop_jacobian

s = Sampler()


def composed(op, *args, **claims):
    """A case that two calls settle: one that records the formula, and one that finds what does not move."""
    return case(COPY, op, *args, calls=2, **claims)


holes = torch.tensor([False, True, False])
picks = torch.tensor([0, 2])

CASES = [
    composed(written(lambda out: out[0].mul_(3)), s(2, 3), stored=[0], blocks=[2]),
    composed(written(lambda out: out[1:].neg_()), s(3), stored=[0], blocks=[2]),
    composed(written(lambda out: out[:, 0].sin_()), s(2, 3), stored=[2], blocks=[2]),
    composed(written(lambda out, y: out[0].mul_(y)), s(2, 3), s(3), stored=[3, 3], blocks=[2, 1]),
    composed(written(lambda out, y: out[1:].mul_(y)), s(3, 2), s(2), stored=[2, 4], blocks=[2, 1]),
    composed(written(lambda out, y: out[1, 1:].div_(y)), s(2, 3), s.positive(1), stored=[1, 2]),
    composed(written(lambda out, y: out[:, 1:].add_(y, alpha=2)), s(2, 3), s(2, 2), stored=[0, 0]),
    composed(written(lambda out, y: out[::2].mul_(y)), s(5), s(3), stored=[8, 3]),
    composed(across(lambda out, y: out[0].mul_(y)), s(3, 2), s(3), stored=[3, 3]),
    composed(written(lambda out, y: out[0].mul_(y)), s(1), s(), stored=[1, 1], blocks=[1, 1]),
    composed(written(lambda out: out[1:4].masked_fill_(holes, 0)), s(5), stored=[3], blocks=[3]),
    composed(written(lambda out: out[1].index_fill_(0, picks, 1.0)), s(2, 3), stored=[3]),
    composed(written(lambda out, y: out[1].index_put_((picks,), y)), s(2, 3), s(2), stored=[3, 2]),
    composed(lambda y: written(lambda out: out[1:].mul_(y))(torch.ones(3).double()), s(2), stored=[2]),
]


@over_cases(CASES)
def test_composed(one: Case) -> None:
    """The blocks of the recorded formula are the whole local Jacobian."""
    check(one)


@pytest.mark.parametrize("level", LEVELS)
def test_inside_functorch(level: str) -> None:
    """The factors may be batched, or differentiated by an outer transform."""

    def f(x):
        out = x.clone()
        out[1:].mul_(x[:-1])
        out[:2].sin_()
        return out

    writes = [node for node in walk_at(level, f) if node.name == COPY]
    # Where the factors are batched the call that moves nothing is refused, and is made anew with a batched cotangent.
    assert [node.note for node in writes] == ["explicit"] * 2
    assert all(node.calls <= 2 for node in writes)


@pytest.mark.parametrize("n", [3, 4, 60])
def test_values_and_second_derivatives_under_vmap(n: int) -> None:
    """Each sample has its own factors, and they keep their derivatives."""

    def f(x):
        out = x * 1.0
        out[1:].mul_(x[:-1])
        out[:2].div_(x[-1])
        return out.square().sum()

    x = s.positive(2, n)
    gradient = torch.stack([torch.stack([loop_jacobian(f, row)]) for row in x])
    torch.testing.assert_close(vmap(lambda x: jacobian(f)(x).to_dense())(x), gradient[:, 0])
    expected = torch.stack([loop_jacobian(grad(f), row) for row in x])
    torch.testing.assert_close(vmap(hessian(f))(x), expected)
    torch.testing.assert_close(torch.stack([jacrev(jacrev(f))(row) for row in x]), expected)
    torch.testing.assert_close(jacrev(lambda x: jacobian(f)(x).to_dense())(x[0]), expected[0])


def test_structure_under_vmap() -> None:
    """A multiplier inside vmap stays a diagonal: the part's, the rest and the factors."""
    stored = []

    def look(x):
        out = written(lambda out: out[1:].mul_(x[:-1]))
        J = jacobian(out)(x)
        stored.append((J.stored, len(J.blocks)))
        return J.to_dense()

    x = s(3, 40)
    found = vmap(look)(x)
    assert stored == [(39, 2)]
    torch.testing.assert_close(
        found, torch.stack([torch.diag(torch.cat([x.new_ones(1), row[:-1]])) for row in x])
    )


@pytest.mark.parametrize("value", [0.0, torch.inf, torch.nan])
def test_what_is_dropped_and_what_is_not(value: float) -> None:
    """A filled entry drops an infinite slope above it; a factor of zero times it is NaN, as PyTorch has it."""

    def filled(x):
        out = x.clone()
        out[1:3].masked_fill_(torch.tensor([True, False]), 0.0)
        return out.sqrt()

    def scaled(x):
        out = x.clone()
        out[1:3].mul_(torch.tensor([value, 1.0], dtype=x.dtype))
        return out.sqrt()

    x = torch.tensor([1.0, 4.0, 9.0, 16.0], dtype=torch.float64)
    for f in (filled, scaled):
        rows = torch.stack([torch.func.vjp(f, x)[1](row)[0] for row in torch.eye(4, dtype=torch.float64)])
        torch.testing.assert_close(jacobian(f)(x).to_dense().diagonal(), rows.diagonal(), equal_nan=True)


def test_a_power_drops_and_multiplies() -> None:
    """A power with tensor exponents drops where the exponent is zero, and multiplies by zero where the base is."""
    exponents = torch.tensor([0.0, 2.0], dtype=torch.float64)

    def f(x):
        out = x.clone()
        out[1:3].pow_(exponents)
        return torch.stack([out[0], (1 - out[1]).sqrt(), out[2].sqrt()])  # infinite slopes above both

    x = torch.tensor([1.0, 3.0, 0.0], dtype=torch.float64)
    rows = torch.stack([torch.func.vjp(f, x)[1](row)[0] for row in torch.eye(3, dtype=torch.float64)])
    torch.testing.assert_close(jacobian(f)(x).to_dense().diagonal(), rows.diagonal(), equal_nan=True)
    assert rows.diagonal().isnan().tolist() == [False, False, True]


def test_mixing_write() -> None:
    """A write that mixes entries is left to seeds and stays right."""
    for write in (lambda out: out[0].cumsum_(0), lambda out: out[0].copy_(out.softmax(1)[0])):
        check_rule(written(write), s(2, 3))


class _Aside(torch.autograd.Function):
    """part ← 3 part in place, with a backward of which autograd sees another factor, or none."""

    @staticmethod
    def forward(ctx, part, how):
        ctx.how = how
        ctx.mark_dirty(part)
        return part.mul_(3)

    @staticmethod
    def backward(ctx, cotangent):
        twice = 2 * cotangent
        if ctx.how == "in place":
            twice.data.mul_(1.5)
            return twice, None
        if ctx.how == "zeroed":
            twice.data.zero_()
            return twice, None
        return twice + cotangent.detach(), None


@pytest.mark.parametrize(("how", "factor"), [("in place", 3.0), ("zeroed", 0.0), ("detached", 3.0)])
def test_backward_outside_of_the_graph(how: str, factor: float) -> None:
    """What a Python Function computes outside of the graph is noticed."""

    def f(x):
        out = x.clone()
        _Aside.apply(out[1:], how)
        return out

    expected = torch.diag(torch.tensor([1.0, factor, factor], dtype=torch.float64))
    torch.testing.assert_close(jacobian(f)(s(3)).to_dense(), expected)


def test_few_digits() -> None:
    """Where sums have too few digits to compare, the entries are found otherwise."""
    x = torch.ones(5, dtype=torch.bfloat16)
    f = written(lambda out: out[1:].mul_(2))
    assert torch.equal(jacobian(f)(x).to_dense(), torch.diag(torch.tensor([1.0, 2, 2, 2, 2])).bfloat16())


class Detaching(torch.autograd.Function):
    """Doubles in place; its backward hides one entry from the graph."""

    @staticmethod
    def forward(ctx, x):
        """Double."""
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, g):
        """Twice the cotangent, of which the first entry carries no graph."""
        doubled = 2 * g
        return torch.cat([doubled[:1].detach(), doubled[1:]])


@pytest.mark.parametrize("n", [2, 5, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_function_hides_from_the_graph(n: int, dtype: torch.dtype) -> None:
    """That a Function ran is seen, not judged by numbers: one entry of many is not lost in a rounding."""

    def f(x):
        out = x.clone()
        Detaching.apply(out[1:])
        return out

    expected = torch.full((n,), 2.0, dtype=dtype)
    expected[0] = 1
    assert torch.equal(jacobian(f)(torch.rand(n, dtype=dtype)).diagonal(), expected)
