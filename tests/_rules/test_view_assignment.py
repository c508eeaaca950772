"""Assignments through views: one call tells where the part stands that was written."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases, walk
from tests._rules.test_probe import COPY, across, written
from torch.func import grad

from torchjac import hessian, jacobian, jacrev, jvp, vmap
from torchjac.testing import check_rule, loop_jacobian

s = Sampler()
VIEW = "AsStridedBackward0"


def assigned(op, *args, name=COPY, **claims):
    """A case that one call settles."""
    return case(name, op, *args, calls=1, **claims)


zeros = torch.zeros(2, 3, dtype=torch.float64)
column = torch.ones(2, dtype=torch.float64)

CASES = [
    assigned(written(lambda out, y: out[1:-1].copy_(y)), s(5), s(3), stored=[0, 0], blocks=[2, 1]),
    assigned(written(lambda out, y: out[1:].copy_(y)), s(3, 2), s(2), stored=[0, 0], blocks=[1, 1]),
    assigned(written(lambda out, y: out[:, ::2].copy_(y)), s(2, 4), s(2, 1), stored=[4, 0]),
    assigned(written(lambda out: out.t()[0].zero_()), s(2, 3), stored=[0], blocks=[1]),
    assigned(written(lambda out, y: out.t()[1].copy_(y)), s(3, 2), s(3), stored=[0, 0], blocks=[1, 1]),
    assigned(written(lambda out, y: out.diagonal().copy_(y)), s(3, 4), s(3), stored=[12, 0]),
    assigned(written(lambda out, y: out[1, 2].copy_(y)), s(3, 4), s(), stored=[0, 0], blocks=[4, 1]),
    assigned(written(lambda out, y: out[0].copy_(y)), s(1, 1), s(1), stored=[0, 0], blocks=[0, 1]),
    assigned(written(lambda out, y: out[:].copy_(y)), s(2, 3), s(3), stored=[0, 0], blocks=[0, 1]),
    assigned(written(lambda out, y: out.view(())[...].copy_(y)), s(1), s(), blocks=[0, 1]),
    assigned(written(lambda out, y: out.t().view(3, 2, 1)[2].copy_(y)), s(2, 3), s(1), stored=[0, 0]),
    assigned(written(lambda out, y: out[0].add_(y)), s(2, 3), s(3), stored=[0, 0], blocks=[1, 1]),
    assigned(written(lambda out, y: out[:, 1:].sub_(y)), s(2, 3), s(2, 1), stored=[0, 0], blocks=[1, 1]),
    assigned(written(lambda out, y: out[0].copy_(-y)), s(2, 3), s(3), stored=[0, 0], blocks=[1, 1]),
    assigned(written(lambda out: out[1:].zero_()), s(3), stored=[0], blocks=[1]),
    assigned(written(lambda out: out[1:2].fill_(2.0)), s(3), stored=[0], blocks=[2]),
    assigned(written(lambda out: out[:, 1].copy_(column)), s(2, 3), stored=[0], blocks=[2]),
    assigned(written(lambda out: out[:, ::2].zero_()), s(2, 3), stored=[3], blocks=[1]),
    assigned(across(lambda out: out[0].zero_()), s(3, 2), stored=[0], blocks=[1]),
    assigned(across(lambda out, y: out[0].copy_(y)), s(3, 2), s(3), stored=[0, 0], blocks=[1, 1]),
    assigned(lambda y: across(lambda out: out[:, 0].copy_(y))(zeros), s(3), stored=[0], blocks=[1]),
    assigned(written(lambda out: out[0, ::2].zero_()), s(2, 3), stored=[6], blocks=[1]),
    assigned(lambda y: written(lambda out: out[:, 1].copy_(y))(zeros), s(2), stored=[0], blocks=[1]),
    assigned(lambda x: x.as_strided((2, 3), (3, 1), 1), s(8), name=VIEW, stored=[0], blocks=[1]),
    assigned(lambda x: x.as_strided((2, 3), (1, 2)), s(4, 2), name=VIEW, stored=[0], blocks=[1]),
    assigned(lambda x: x.as_strided((), (), 2), s(4), name=VIEW, stored=[0], blocks=[1]),
]


@over_cases(CASES)
def test_assigned(one: Case) -> None:
    """What the graph of one call tells is the whole local Jacobian."""
    check(one)


def test_writes_of_scalars_in_a_loop() -> None:
    """A buffer of full size filled entry by entry: one call a write, and one block for the whole answer."""

    def fill(x):
        out = torch.zeros(200, dtype=x.dtype)
        for k in range(200):
            out[k] = x[k] ** 2
        return out

    x = s(200)
    writes = [node for node in walk(fill, x) if node.name == COPY]
    assert [node.calls for node in writes] == [1] * 200
    J = jacobian(fill)(x)
    assert J.stored <= 3 * 200
    torch.testing.assert_close(J.to_dense(), torch.diag(2 * x))


def test_stencil_written_by_slices() -> None:
    """Slices of a vector of full size: one call a write, and bands."""

    def stencil(u):
        out = torch.zeros_like(u)
        out[1:-1] = u[2:] - 2 * u[1:-1] + u[:-2]
        out[0], out[-1] = u[1] - 2 * u[0], u[-2] - 2 * u[-1]
        return out

    u = s(1000)
    assert [node.calls for node in walk(stencil, u) if node.name == COPY] == [1] * 3
    J = jacobian(stencil)(u)
    n = torch.ones(999, dtype=torch.float64)
    torch.testing.assert_close(
        J.to_dense(), torch.diag(n, 1) + torch.diag(n, -1) - 2 * torch.eye(1000).double()
    )
    assert J.stored == 0


def test_assignments_in_a_loop() -> None:
    """Time steps written one by one into a result leave one block for each entry at most."""

    def steps(x):
        out = x.new_zeros(4, 2)
        for k in range(4):
            out[k] = x * (k + 1)
            out[k] += x.square()
        return out

    check_rule(steps, s(2))


#: What a function of a vector of five is called inside of
LEVELS = {
    "vmap": lambda look: vmap(look)(s(2, 5)),
    "vmap over one": lambda look: vmap(look)(s(1, 5)),
    "vmap over as many as entries": lambda look: vmap(look)(s(5, 5)),
    "vmap over the last dim": lambda look: vmap(look, in_dims=1)(s(5, 2)),
    "vmap twice": lambda look: vmap(vmap(look))(s(2, 3, 5)),
    "grad": lambda look: grad(look)(s(5)),
    "jvp": lambda look: jvp(look, (s(5),), (s(5),)),
    "vmap grad": lambda look: vmap(grad(look))(s(2, 5)),
    "grad vmap": lambda look: grad(lambda x: vmap(look)(x).sum())(s(2, 5)),
}


def walk_at(level, f):
    """The nodes of a walk of a function of a vector of five, inside of what the level says."""
    nodes = []

    def look(x):
        nodes.extend(walk(f, x))
        return x.sum()

    LEVELS[level](look)
    return nodes


@pytest.mark.parametrize("level", LEVELS)
def test_inside_functorch(level: str) -> None:
    """A write is found by one call at any level, though each sample holds other values."""

    def f(x):
        out, other = torch.zeros_like(x), x.clone()
        out[1:-1] = x[2:] * x[:-2]
        other[::2].add_(x[0])
        other[1:4] = out[:3]
        return out + other

    writes = [node for node in walk_at(level, f) if node.name == COPY]
    assert [(node.calls, node.note) for node in writes] == [(1, "explicit")] * 3


@pytest.mark.parametrize("level", LEVELS)
def test_views_inside_functorch(level: str) -> None:
    """A view that was written into is found by one call at any level."""

    def f(x):
        whole = x.clone()
        part = whole[1:4]
        part += x[0]
        return part * x[:3]

    (view,) = [node for node in walk_at(level, f) if node.name == VIEW]
    assert (view.calls, view.note) == (1, "explicit")


@pytest.mark.parametrize("in_dim", [0, 1])
@pytest.mark.parametrize("n", [5, 100])
def test_values_under_vmap(n: int, in_dim: int) -> None:
    """By rows where all is small, by structure elsewhere: each sample has its own Jacobian and Hessian."""

    def f(x):
        out = torch.zeros_like(x)
        out[1:-1] = x[2:] * x[:-2]
        out[0] = x[1].sin()
        out[1:] -= x[0]
        out[2:4] = x[3] * x[:2]
        return out

    x = s(3, n)
    given = x if in_dim == 0 else x.t().contiguous()
    for g in (f, lambda x: f(x).square().sum()):
        expected = torch.stack([loop_jacobian(g, row) for row in x])
        torch.testing.assert_close(vmap(jacrev(g), in_dim)(given), expected)
    few = x[:, :5]
    expected = torch.stack(
        [loop_jacobian(torch.func.grad(lambda x: f(x).square().sum()), row) for row in few]
    )
    found = vmap(hessian(lambda x: f(x).square().sum()), in_dim)(few if in_dim == 0 else few.t().contiguous())
    torch.testing.assert_close(found, expected)


def test_multipliers_of_one_keep_their_derivative() -> None:
    """A part multiplied by ones looks as if it were added to; the second derivative tells the difference."""

    def by(y):
        def f(x):
            out = x.clone()
            out[1:].mul_(y)
            return out

        return jacobian(f)(torch.ones(3, dtype=torch.float64)).to_dense()

    expected = torch.zeros(3, 3, 2, dtype=torch.float64)
    expected[1, 1, 0] = expected[2, 2, 1] = 1
    torch.testing.assert_close(jacrev(by)(torch.ones(2, dtype=torch.float64)), expected)


class _Aside(torch.autograd.Function):
    """An identity in place whose backward doubles the gradient where autograd does not see it."""

    @staticmethod
    def forward(ctx, part, how):
        ctx.how = how
        ctx.mark_dirty(part)
        return part

    @staticmethod
    def backward(ctx, cotangent):
        if ctx.how == "in place":
            cotangent.data.mul_(2)
            return cotangent, None
        if ctx.how == "numpy":
            return torch.from_numpy(2 * cotangent.numpy()), None
        return 2 * cotangent.detach(), None


@pytest.mark.parametrize("how", ["in place", "detached", "numpy"])
def test_backward_outside_of_the_graph(how: str) -> None:
    """What a Python Function computes outside of the graph is noticed, or its refusal is."""

    def f(x):
        out = x.clone()
        _Aside.apply(out[1:], how)
        return out

    found = jacobian(f)(s(3)).to_dense()
    torch.testing.assert_close(found, torch.diag(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)))


@pytest.mark.parametrize("size", [20, 40])
def test_few_digits(size: int) -> None:
    """Where a dtype has fewer numbers than there are entries, one call tells nothing."""

    def f(y):
        out = y.new_zeros(size)
        out[size - 2 :] = y
        return out

    y = torch.ones(2, dtype=torch.bfloat16)
    expected = torch.zeros(size, 2, dtype=torch.bfloat16)
    expected[-2:] = torch.eye(2)
    assert torch.equal(jacobian(f)(y).to_dense(), expected)
    (node,) = [node for node in walk(f, y) if node.name == COPY]
    assert (node.calls == 1) == (size == 20)


def test_overwritten_infinity() -> None:
    """Where a part with gaps was overwritten, an infinite slope above is dropped."""

    def f(x):
        out = x.clone()
        out[::2] = 0.0
        return out.sqrt()

    x = torch.tensor([1.0, 4.0, 1.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(
        jacobian(f)(x).to_dense(), torch.diag(torch.tensor([0, 0.25, 0, 0.25], dtype=torch.float64))
    )
