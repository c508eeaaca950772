"""pieces: a Jacobian by ranges of rows."""

import gc

import pytest
import torch
from tests.allocations import Alive
from tests.functions import Mix

from torchjac import jacobian, pieces, vmap
from torchjac.testing import loop_jacobian

D = torch.float64


def mixing(x):
    return Mix.apply(x.sin()).cumsum(-1)


@pytest.mark.parametrize("shape", [(40,), (3, 14), (1, 5, 8)])
@pytest.mark.parametrize("memory", ["6 kB", "40 kB", "1 MB"])
def test_the_rows_are_those_of_the_jacobian(shape, memory) -> None:
    """The ranges follow each other, each with its rows; the function runs once, before the first is asked for."""
    calls = []

    def f(x):
        calls.append(1)
        return mixing(x)

    x = torch.randn(shape, dtype=D)
    found = pieces(f, memory=memory)(x)
    assert len(calls) == 1
    at, rows = 0, []
    for span, J in found:
        assert span.start == at
        assert J.shape == (len(span), *shape)
        at = span.stop
        rows.append(J.to_dense())
    assert len(calls) == 1
    expected = loop_jacobian(mixing, x).reshape(-1, *shape)
    torch.testing.assert_close(torch.cat(rows), expected)
    assert (len(rows) == 1) == (memory == "1 MB")


def test_a_loop_stays_within_the_budget() -> None:
    """While a loop holds one piece and the next is found, no more is alive than the budget."""
    x = torch.randn(300, dtype=D)
    memory = 200_000
    gc.collect()
    with Alive() as alive:
        y = mixing(x.clone().requires_grad_())
        own = alive.most
    del y
    with Alive() as alive:
        count = sum([J.to_dense().shape[0] > 0 and 1 for _, J in pieces(mixing, memory=memory)(x)])
    assert count > 5
    assert alive.most <= own + 1.1 * memory + 300 * 8


def test_structure_is_one_piece() -> None:
    """A million rows that are two diagonals fit together."""
    ((rows, J),) = pieces(lambda x: x[1:] * x[:-1], memory="200 MB")(torch.zeros(1_000_000))
    assert rows == range(999_999)
    assert (J.nnz, len(J.blocks)) == (1_999_998, 2)


def test_trees_and_scalars() -> None:
    """Each piece is a tree like the argument; a scalar is one row, and an output without entries has none."""
    parameters = {"a": torch.randn(3, dtype=D), "b": torch.randn(2, 2, dtype=D)}
    ((rows, J),) = pieces(lambda p, s: s * p["a"].sum() * p["b"].prod())(parameters, 2.0)
    assert rows == range(1)
    expected = jacobian(lambda p: 2 * p["a"].sum() * p["b"].prod())(parameters)
    torch.testing.assert_close(J["b"].to_dense()[0], expected["b"].to_dense())
    assert list(pieces(lambda x: x[:0])(torch.ones(3))) == []


def test_what_is_refused() -> None:
    """Several outputs, a budget that is none, a graph of the answer and transforms are refused at once."""
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(TypeError, match="pieces: func must be callable"):
        pieces(x)
    with pytest.raises(ValueError, match="pieces: memory must be a positive number of bytes"):
        pieces(torch.sin, memory="much")
    with pytest.raises(
        ValueError, match="pieces: func must return one tensor, whose rows are taken in order, got 2"
    ):
        pieces(lambda x: (x, x))(x.detach())
    with pytest.raises(RuntimeError, match="pieces: memory= keeps no graph"):
        pieces(torch.sin)(x)
    with pytest.raises(RuntimeError, match="pieces: memory= cannot be kept inside"):
        vmap(lambda x: list(pieces(torch.sin)(x)))(torch.ones(2, 3))
    with pytest.raises(MemoryError, match="pieces: a single row"):
        next(pieces(mixing, memory=500)(torch.ones(100)))
