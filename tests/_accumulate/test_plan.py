"""What the cost rules ask of a tape: which graphs of formulas are trusted, and when structure pays."""

import pytest
import torch
from tests.functions import Scale

from torchjac import jacrev
from torchjac._accumulate.plan import goes_in_columns, structure_pays, way
from torchjac._rules.registry import RULES
from torchjac._transforms.run import record, walking
from torchjac.testing import loop_jacobian


class Ruled(Scale):
    """One that a rule is registered for."""


def asked(question, f, *shape):
    """What is answered of the tape of a function, in the modes of a walk."""
    recorded = record("test", f, 0, False, (torch.randn(shape),), {})
    with walking(recorded):
        return question(recorded)


def test_graphs_that_are_trusted(monkeypatch):
    """Not those of Python Functions, whether a rule is known for one or not, nor of complex numbers."""
    trusted = lambda recorded: goes_in_columns(recorded.captured.tape)
    monkeypatch.setitem(RULES, "RuledBackward", RULES["NegBackward0"])
    assert asked(trusted, torch.sin, 3)
    assert not asked(trusted, Scale.apply, 3)
    assert not asked(trusted, Ruled.apply, 3)
    assert not asked(trusted, lambda x: torch.fft.fft(x).abs(), 3)


def test_structure_pays_by_what_it_spares():
    """A chain of pointwise ops on hundreds of entries, not one that mixes all of them, nor one on a hundred."""

    def chain(x):
        for _ in range(10):
            x = x.sin() * 2
        return x

    pays = lambda recorded: structure_pays(recorded.captured.tape, recorded.shapes)
    assert asked(pays, chain, 300)
    assert not asked(pays, chain, 100)
    assert not asked(pays, lambda x: chain(x.cumsum(0)).cumsum(0), 200)


def test_rows_are_not_taken_where_they_would_go_one_by_one():
    """Not through the backward of `cdist`; a norm's second backward takes a batch, though PyTorch's own does not."""
    x = torch.randn(60, 3)
    distances = lambda x: torch.cdist(x, x).cumsum(0).sin()
    norm = jacrev(lambda x: torch.nn.functional.layer_norm(x.flatten().cumsum(0), (180,)).sin().sum())
    for f, expected in [(distances, "structure"), (norm, "rows")]:
        recorded = record("test", f, 0, False, (x,), {})
        with walking(recorded):
            assert way(recorded.captured.tape, recorded.shapes) == expected


@pytest.mark.parametrize(("n", "expected"), [(5, "rows"), (1000, "structure")])
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
            ways.append(way(recorded.captured.tape, recorded.shapes))
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
