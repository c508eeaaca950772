"""Anti-diagonals, against sums written out."""

import pytest
import torch

from torchjac._blocks.maps import Label
from torchjac._blocks.skew import Meeting, meet, met, skewed, spread, spread_over

SHAPES = [(1, 1), (1, 3), (3, 1), (2, 3), (4, 2)]


@pytest.mark.parametrize("rows, columns", SHAPES)
@pytest.mark.parametrize("step, other", [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_skewed(rows: int, columns: int, step: int, other: int) -> None:
    """The number of t, s stands at step · t + other · s, and nothing else does."""
    value = torch.randn(2, rows, columns, dtype=torch.float64)
    expected = torch.zeros(2, rows, step * (rows - 1) + other * (columns - 1) + 1, dtype=torch.float64)
    for t in range(rows):
        for s in range(columns):
            expected[:, t, step * t + other * s] = value[:, t, s]
    assert torch.equal(skewed(value, step, other), expected)


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_meet_and_spread_are_one(sizes: tuple[int, int], steps: tuple[int, int]) -> None:
    """Of a product what meets is added, after it or by a matrix before it; labels come as they are told."""
    i, first, second = Label(2), Label(sizes[0]), Label(sizes[1])
    both = Label(steps[0] * (sizes[0] - 1) + steps[1] * (sizes[1] - 1) + 1)
    meetings = (Meeting(first, second, *steps, both),)
    left, right = (torch.randn(*shape, dtype=torch.float64) for shape in ((sizes[0], 2), (sizes[1], 3)))
    k = Label(3)
    apart = torch.einsum("ti,sk->tisk", left, right)
    on = (first, i, second, k)
    assert met(on, meetings) == (i, k, both)
    expected = torch.zeros(2, 3, both.size, dtype=torch.float64)
    for t in range(sizes[0]):
        for s in range(sizes[1]):
            expected[:, :, steps[0] * t + steps[1] * s] += apart[t, :, s]
    torch.testing.assert_close(meet(apart, on, meetings), expected)
    assert spread_over((second, k), meetings) == (k, first, both)
    matrix = spread(right, (second, k), meetings)
    torch.testing.assert_close(torch.einsum("ti,ktu->iku", left, matrix), expected)
