"""Walks that were gone before: replayed without a composition, and told apart by all they look at."""

import weakref
from unittest import mock

import pytest
import torch
from torch import inf
from torch.nn.functional import pad

from torchjac import grad, jacfwd, jacobian, jacrev, vmap
from torchjac._accumulate import replay, reverse
from torchjac._accumulate.replay import Recipe
from torchjac._blocks.compose import compose
from torchjac._capture import memo
from torchjac._capture.memo import Memo
from torchjac.testing import loop_jacobian


@pytest.fixture(autouse=True)
def by_structure(monkeypatch):
    """Every function is walked by structure, and no key is known from another test."""
    monkeypatch.setattr("torchjac._transforms.jacrev.way", lambda *_: "structure")
    monkeypatch.setattr(replay, "_known", Memo())


def composed(call):
    """What a call returns, and how many blocks it composed."""
    with mock.patch.object(reverse, "compose", side_effect=compose) as counted:
        return call(), counted.call_count


def walk(f, *args):
    """The Jacobian by a walk, whatever is known."""
    with mock.patch.object(reverse, "replays", return_value=False):
        return jacobian(f)(*args)


def reaction(x, c=2.0):
    """A stencil beside a product, with numbers that may change."""
    u, v = x[0], x[1]
    inside = pad(u, (1, 1))
    return torch.stack([c * (inside[2:] - 2 * u + inside[:-2]) + u * u * v, 3 * u - v.exp()])


def network(x):
    """Two layers on a batch."""
    torch.manual_seed(0)
    first, second = torch.randn(6, 5, dtype=x.dtype), torch.randn(5, 3, dtype=x.dtype)
    return (x @ first).tanh() @ second


def stencil(x):
    """Steps of a stencil on a torus: blocks on a line are joined."""
    for _ in range(3):
        x = x + 0.1 * (x.roll(1, 0) + x.roll(-1, 0) + x.roll(1, 1) + x.roll(-1, 1) - 4 * x) - 0.1 * x**3
    return x


def buffer(x):
    """Writes into a buffer."""
    out = torch.zeros(9, dtype=x.dtype)
    out[1:-1] = x.sin()
    out[2:6] = x[:4] * x[1:5]
    return out * 2


def small(x):
    """So many blocks on so few numbers that all are written out."""
    for shift in range(4):
        x = x * x.flip(0) + x.roll(shift, 0)
    return x


CASES = {
    "reaction": (reaction, (2, 7)),
    "network": (network, (4, 6)),
    "stencil": (stencil, (9, 8)),
    "buffer": (buffer, (7,)),
    "small": (small, (3,)),
    "relu": (lambda x: (2 * x).relu() + x.clamp(-1, 0.5), (6,)),
    "gradient": (grad(lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()), (6,)),
    "sums": (lambda x: x.sum(1, keepdim=True) * x + x.mean(), (3, 4)),
    "itself": (lambda x: x, (3,)),
    "a scalar": (lambda x: x * x * 3, ()),
    "nothing": (lambda x: x[:0] * 2, (3,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_without_composing(name):
    """From the third call on no block is composed, and the blocks are those of the walk, of other values."""
    f, shape = CASES[name]
    counts = []
    for _ in range(4):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))  # rows may take over
        operator, count = composed(lambda x=x: jacobian(f)(x))
        counts.append(count)
        torch.testing.assert_close(operator.to_dense(), loop_jacobian(f, x))
    assert counts[2:] == [0, 0]
    walked = walk(f, x)
    assert operator.stored == walked.stored
    assert len(operator.blocks) == len(walked.blocks)
    assert str(operator.report) == str(walked.report)
    torch.testing.assert_close(operator.to_dense(), walked.to_dense(), rtol=0, atol=0)


@pytest.mark.parametrize("first", [1.0, 2.0])
def test_numbers_may_change(first):
    """A factor that is a Python number is a value as any other; one that is 1, or becomes 1, is right too."""
    x = torch.randn(2, 7, dtype=torch.float64)
    for c in (first, first, first, 3.0, 1.0, 1.0, 1.0, -5.0, 0.0):
        f = lambda x, c=c: reaction(x, c)
        torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))
    assert Recipe in map(type, replay._known.kept.values())


def test_infinite_factors():
    """What a ReLU drops stays dropped, whatever came before: a number on the way, or an infinite tensor."""
    f = lambda x, y: (x.relu() * y).relu() * y
    for y in (2.0, 2.0, 2.0, inf, -inf, torch.tensor([1.0, inf, -inf]).double(), torch.ones(3).double()):
        for _ in range(3):
            x = torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64)
            expected = walk(f, x, y)
            torch.testing.assert_close(jacobian(f)(x, y).to_dense(), expected.to_dense(), equal_nan=True)
            assert expected.to_dense()[0, 0] == 0


def test_other_graphs_have_other_keys():
    """Branches on values, other shapes, dtypes, positions, strides of a slice: each is a walk of its own."""

    def f(x, k):
        y = x.sin() if x.sum() > 0 else x[k:] * x[: len(x) - k].cos()
        return y[::k]

    for _ in range(3):
        for k in (1, 2, 3):
            for dtype in (torch.float32, torch.float64):
                for n in (6, 7):
                    for sign in (1, -1):
                        x = sign * torch.rand(n, dtype=dtype)
                        torch.testing.assert_close(jacobian(f)(x, k).to_dense(), loop_jacobian(f, x, k))


def test_joints_have_other_keys():
    """The same ops on the same shapes, joined in another way."""
    fs = [
        lambda x, y: (x.sin() - y.exp(), y),
        lambda x, y: (y.exp() - x.sin(), y),
        lambda x, y: (y, x.sin() - y.exp()),
        lambda x, y: (x.sin() - x.exp(), y),
        lambda x, y: (x.sin(), y.exp()),
        lambda x, y: (x[1:] - y[:-1], y),
        lambda x, y: (x[:-1] - y[1:], y),
        lambda x, y: ((z := x.exp()).sin() - z, y),
        lambda x, y: ((z := x.exp()) - z.sin(), y),
    ]
    for _ in range(3):
        for f in fs:
            x, y = torch.randn(2, 3, dtype=torch.float64)
            for argnums in ((0, 1), (1, 0)):
                found = jacobian(f, argnums)(x, y)
                for k in range(2):
                    for place, argnum in enumerate(argnums):
                        expected = loop_jacobian(lambda x, y, k=k, f=f: f(x, y)[k], x, y, argnum=argnum)
                        torch.testing.assert_close(found[k][place].to_dense(), expected)


def test_recorded_and_mapped():
    """A replayed answer is differentiated, and mapped over, as any other; each has a key of its own."""
    total = lambda x: jacrev(reaction)(x).square().sum()
    for _ in range(4):
        x = torch.randn(3, 2, 5, dtype=torch.float64)
        expected = torch.stack([loop_jacobian(reaction, each) for each in x])
        torch.testing.assert_close(vmap(jacrev(reaction))(x), expected)
        torch.testing.assert_close(jacrev(reaction)(x[0]), expected[0])
        torch.testing.assert_close(jacfwd(reaction)(x[0]), expected[0])
        asked = x[0].clone().requires_grad_()
        (found,) = torch.autograd.grad(total(asked), asked)
        torch.testing.assert_close(found, loop_jacobian(total, x[0]))
        torch.testing.assert_close(jacrev(jacrev(reaction))(x[0]), loop_jacobian(jacrev(reaction), x[0]))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.softmax(0) * 2,  # called on seeds
        lambda x: x[torch.tensor([0, 2, 2, 1])].sin(),  # stands where a tensor says
        lambda x: (x.float() * 2).double().sin(),  # changes its dtype
        lambda x: torch.view_as_real(torch.complex(x, x) * 2j),
    ],
)
def test_what_takes_values_is_walked(f):
    """Seeds, index tensors, other dtypes: walked each time, and right."""
    for _ in range(4):
        x = torch.randn(4, dtype=torch.float64)
        found, count = composed(lambda x=x: jacrev(f)(x))
        assert count
        torch.testing.assert_close(found, loop_jacobian(f, x), rtol=1e-6, atol=1e-6)


def test_large_tensors_are_walked():
    """Where all values at once would be many, a walk lets go of them as it goes."""
    f = lambda x: x.sin().exp()
    for _ in range(3):
        _, count = composed(lambda: jacobian(f)(torch.randn(50_000)))
        assert count


def test_rows_that_take_over_are_not_written_down(monkeypatch):
    """Where dense rows are faster from a node on, they are found anew each time."""
    monkeypatch.setattr(reverse, "SOME_BLOCKS", 0)
    monkeypatch.setattr(reverse, "rows_take_over", lambda _, at, *__: at >= 2)
    for name in ("reaction", "itself", "gradient"):
        f, shape = CASES[name]
        for _ in range(4):
            x = torch.randn(shape, dtype=torch.float64)
            torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))


def test_no_more_is_remembered_than_fits(monkeypatch):
    """Beyond so many nodes all is forgotten, and walked again."""
    monkeypatch.setattr(memo, "MOST_NODES", 10)
    f = lambda x: x.sin().exp() * x
    for n in range(3, 30):
        for _ in range(3):
            x = torch.randn(n, dtype=torch.float64)
            torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
        assert 0 < len(replay._known.kept) <= 3


def test_nothing_of_a_call_is_kept():
    """Neither what the function captured nor what autograd saved is held by what is remembered."""
    x, kept = torch.randn(2, 7, dtype=torch.float64), []
    for _ in range(4):
        weight = torch.randn(2, 7, dtype=torch.float64)
        kept.append(weakref.ref(weight))
        jacobian(lambda x, weight=weight: stencil(weight * x).relu())(x)
        del weight
    assert [each() for each in kept] == [None] * 4
