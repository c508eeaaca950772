"""The dense way: rows of the identity, one for all samples of a vmap where that is right."""

import pytest
import torch
from tests.forced import force

from torchjac import jacrev, vmap
from torchjac._accumulate import dense_rows
from torchjac._capture.capture import plain
from torchjac.testing import loop_jacobian

A = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)


def written(x):
    """A write into a part: its cotangent must have the batch dim."""
    out = x.sin()
    out[1:].mul_(x[:-1])
    return out


def at_level(f):
    """The function, which cannot be captured beneath vmap: there a tensor has no data."""
    return lambda x: f(x + 0 * x.data)


@pytest.mark.parametrize(
    ("f", "shape"),
    [
        (lambda x: A @ x.sin(), (2, 2)),
        (written, (3, 3)),
        (at_level(lambda x: A @ x.sin()), (2, 2)),
        (at_level(written), (4, 3, 3)),
    ],
)
def test_the_identity_is_held_once(f, shape, monkeypatch):
    """The rows begin without the batch dim, except where they are written into at a level inside vmap."""
    held = []
    walk = dense_rows.walk_rows

    def look(begin, nodes, goals, count, *rest):
        held.extend(plain(rows).shape for rows in begin(0, count).values())
        return walk(begin, nodes, goals, count, *rest)

    monkeypatch.setattr(dense_rows, "walk_rows", look)
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(vmap(jacrev(f))(x), torch.stack([loop_jacobian(f, row) for row in x]))
    assert held == [shape]


@pytest.mark.parametrize("way", ["rows", "structure"])
@pytest.mark.parametrize(
    "f", [lambda x: A @ x, lambda x: 2 * x, lambda x: x[1:], lambda x: x.sum(), lambda x: x.detach().sin()]
)
def test_each_sample_has_its_own_answer(f, way, monkeypatch):
    """Where all samples have the same Jacobian, what is written into one stays out of the others."""
    force(monkeypatch, way)
    x = torch.randn(4, 3, dtype=torch.float64)
    found = vmap(jacrev(f))(x)
    expected = found.clone()
    found[0] += 1
    torch.testing.assert_close(found[1:], expected[1:])
    torch.testing.assert_close(expected, torch.stack([loop_jacobian(f, row) for row in x]))
