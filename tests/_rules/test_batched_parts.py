"""Cotangents of parts of a tensor, joined at once, against the row-by-row loop."""

import pytest
import torch
from tests.allocations import Allocations

from torchjac import hessian, jacrev
from torchjac._capture.tape import Meta
from torchjac._rules.batched_parts import DimPart, DimParts, joined
from torchjac.testing import loop_jacobian

D = torch.float64

FUNCTIONS = {
    "all selected": lambda x: torch.stack([x[0] * x[1], x[1] - x[2], x[0].sin()]),
    "some selected": lambda x: torch.stack([x[2] * x[0], x[0].exp()]),
    "one selected": lambda x: x[-1].sin(),
    "slices side by side": lambda x: torch.cat([x[:1].sin(), x[1:].cos() * x[:1]]),
    "slices that overlap": lambda x: x[1:] * x[:-1],
    "with gaps": lambda x: torch.cat([x[2:3] * x[0:1], x[0].reshape(1, -1)]),
    "selected and a slice of one": lambda x: x[1] * x[1:2],
    "steps": lambda x: x[::2] * x[0],
    "two dims": lambda x: x[0].sum() * x[:, 1] + x[:, 0],
    "the whole beside parts": lambda x: x[0] * x * x[1],
    "an empty slice": lambda x: torch.cat([x[3:], x[1:2] * x[0]]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts(name):
    """Rows through parts of a small state, and their second derivatives."""
    f = FUNCTIONS[name]
    x = torch.randn(3, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jacrev(f)(x), loop_jacobian(f, x))
    energy = lambda x: f(x).square().sum()
    expected = loop_jacobian(jacrev(energy), x)
    torch.testing.assert_close(hessian(energy)(x), expected)


def test_parts_are_joined_at_once():
    """Of a hundred parts one whole is made, and not a hundred."""
    meta = Meta((100, 3), D, torch.device("cpu"))
    rows = {DimPart(k, k + 1, True): torch.randn(2, 3, dtype=D) for k in range(0, 100, 2)}
    with Allocations(600) as seen:
        found = joined(DimParts(0, rows, None), meta, 2)
    assert len(seen.storages) == 1
    expected = torch.zeros(2, 100, 3, dtype=D)
    expected[:, ::2] = torch.stack([*rows.values()], 1)
    torch.testing.assert_close(found, expected)
