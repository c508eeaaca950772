"""The way to dense answers is told from shapes: each function below has one that was measured to be the fastest."""

from unittest import mock

import pytest
import torch
from tests.forced import force

from torchjac import jacfwd, jacrev
from torchjac._accumulate.candidates import first_choice
from torchjac._transforms.call_function import record, walking
from torchjac.testing import loop_jacobian


def taken(f, *shape):
    """The way that is taken for a function of random numbers."""
    recorded = record("test", f, 0, False, (torch.randn(shape),), {})
    with walking(recorded):
        return first_choice(recorded.captured.tape, recorded.shapes).name


def chain(x):
    """Twenty pointwise ops one after another."""
    for _ in range(10):
        x = x.sin() * 2
    return x


def gated(x):
    """Pointwise ops on several ways that meet again: ∂out/∂x stays a diagonal."""
    for _ in range(30):
        x = x.tanh() * 1.5 + x.sin()
    return x


def framed(points, dtype=torch.float32):
    """A chain of six planar frames on many points: a hundred tiny ops, and two wide ones for each frame."""
    wide = torch.randn(2, points, dtype=dtype)

    def f(x):
        frame, moved = torch.eye(2, dtype=dtype), torch.zeros(2, points, dtype=dtype)
        for k in range(6):
            c, s = x[k].cos(), x[k].sin()
            frame = torch.stack([c, -s, s, c]).view(2, 2) @ frame
            moved = moved + frame @ wide
        return moved

    return f


def stepped(x):
    """Euler steps of a stencil that wraps around: three times as many blocks after each."""
    for _ in range(10):
        x = x + 0.01 * (x.roll(1) - 2 * x + x.roll(-1))
    return x


def outer(x):
    """All products of two entries."""
    return torch.outer(x, x)


def solved(x):
    """Every entry of the matrix's gradient is another number: nothing is spared before the diagonal is read."""
    return torch.linalg.solve(torch.eye(len(x)) * 9 + torch.diag(x), x)


def quadratic(x):
    """(xᵀ A x) x with A all ones."""
    return (x @ torch.ones(len(x), len(x)) @ x) * x


@pytest.mark.parametrize(
    ("f", "shape", "expected"),
    [
        pytest.param(chain, (100,), "rows", id="a chain on a hundred numbers"),
        pytest.param(chain, (300,), "reverse", id="a chain on hundreds"),
        pytest.param(gated, (100,), "rows", id="ways that meet again"),
        pytest.param(gated, (300,), "reverse", id="ways that meet again, on hundreds"),
        pytest.param(lambda x: chain(x.cumsum(0)).cumsum(0), (200,), "rows", id="all are mixed"),
        pytest.param(stepped, (200,), "rows", id="ever more blocks"),
        pytest.param(stepped, (1000,), "reverse", id="ever more blocks of a large state"),
        pytest.param(outer, (6,), "rows", id="outer product of six"),
        pytest.param(outer, (20,), "reverse", id="outer product of twenty"),
        pytest.param(lambda x: x.softmax(-1), (5, 20), "rows", id="softmax of some rows"),
        pytest.param(lambda x: x.softmax(-1), (5, 300), "reverse", id="softmax of long rows"),
        pytest.param(torch.linalg.inv, (20, 20), "rows", id="an inverse depends on everything"),
        pytest.param(solved, (20,), "rows", id="few equations"),
        pytest.param(solved, (300,), "rows", id="many equations"),
        pytest.param(quadratic, (300,), "forward", id="a form, which forward order spares a product"),
        pytest.param(framed(500), (6,), "columns", id="many tiny ops"),
        pytest.param(framed(200_000), (6,), "columns", id="many tiny ops, and large ones that move columns anyway"),
        pytest.param(framed(500), (600,), "reverse", id="as many columns as rows"),
    ],
)  # fmt: skip
def test_the_way(f, shape, expected):
    """Rows where little is spared, columns where few go through many ops, structure where it spares more."""
    assert taken(f, *shape) == expected


def test_nothing_is_estimated_of_a_small_function():
    """Where rows take less time than an estimate does, it is not made."""
    never = mock.Mock(side_effect=AssertionError)
    with mock.patch("torchjac._accumulate.candidates.estimated", never):
        assert taken(gated, 20) == "rows"
        assert taken(outer, 5) == "rows"
        assert taken(lambda x: x.sum(), 1000) == "rows"


@pytest.mark.parametrize("points", [300, 20_000])
def test_columns_call_the_engine_twice(points, monkeypatch):
    """However many points there are: once for rows through what is small, once for the columns above."""
    force(monkeypatch, "columns")
    x, step = torch.randn(6, dtype=torch.float64), 1e-6 * torch.eye(6, dtype=torch.float64)
    f = framed(points, torch.float64)
    slopes = torch.stack([(f(x + part) - f(x - part)) / 2e-6 for part in step], -1)
    for transform in (jacrev, jacfwd):
        with mock.patch("torch.autograd.grad", side_effect=torch.autograd.grad) as grad:
            found = transform(f)(x)
        assert grad.call_count == 2
        torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-6)


def test_few_rows_go_one_by_one():
    """Two rows through the backward of `cdist`, which takes no batch; a row more would cost a walk by structure."""
    distances = lambda x: torch.cdist(x, torch.ones(3, 2))
    assert taken(lambda x: distances(x)[0, :2], 2, 2) == "rows"
    assert taken(distances, 2, 2) == "reverse"


def test_rows_are_not_taken_where_they_would_go_one_by_one():
    """Not through the backward of `cdist`; a norm's second backward takes a batch, though PyTorch's own does not."""
    x = torch.randn(60, 3)
    distances = lambda x: torch.cdist(x, x).cumsum(0).sin()
    norm = jacrev(lambda x: torch.nn.functional.layer_norm(x.flatten().cumsum(0), (180,)).sin().sum())
    for f, expected in [(distances, False), (norm, True)]:
        recorded = record("test", f, 0, False, (x,), {})
        with walking(recorded):
            assert (first_choice(recorded.captured.tape, recorded.shapes).name == "rows") is expected


@pytest.mark.parametrize(("n", "expected"), [(5, "rows"), (1000, "reverse")])
def test_writes_inside_vmap(n, expected):
    """A small function that writes into a part goes by rows inside vmap too."""
    ways = []

    def f(x):
        out = x.sin()
        out[1:] = x[:-1].exp()
        return out

    def look(x):
        recorded = record("test", f, 0, False, (x,), {})
        with walking(recorded):
            ways.append(first_choice(recorded.captured.tape, recorded.shapes).name)
        return x

    torch.func.vmap(look)(torch.randn(2, n))
    assert ways == [expected]


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_rows_of_writes_inside_vmap(chunk_size):
    """Node by node, or by structure where a chunk would ask the engine, which fails there."""

    def f(x):
        out = x.sin()
        out[1:].mul_(x[:-1].exp())
        out[0] = x[2]
        return torch.stack([out, torch.zeros_like(out).copy_(out)]).sum(0)

    x = torch.randn(3, 4, dtype=torch.float64)
    expected = torch.stack([loop_jacobian(f, row) for row in x])
    found = torch.func.vmap(jacrev(f, chunk_size=chunk_size))(x)
    torch.testing.assert_close(found, expected)
