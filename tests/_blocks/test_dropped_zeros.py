"""Products in which zeros drop what they meet, against where."""

import pytest
import torch
from tests._blocks.blocks import Ops

from torchjac._blocks import dropped_zeros
from torchjac._blocks.dropped_zeros import select
from torchjac._blocks.maps import Label


@pytest.mark.parametrize("bad", [0.5, torch.nan, -torch.inf])
def test_zeros_that_select_make_one_tensor(bad):
    """What zeros drop is dropped in the product itself, and only where something is not finite.

    Where the product is recorded or transformed it is not written into.
    """
    i, j = Label(5), Label(40)
    left, right = torch.rand(5, 40, dtype=torch.float64), torch.rand(40, dtype=torch.float64).round()
    left[0] = bad
    with Ops(left.numel()) as seen:
        found, over = select(left, (i, j), right, (j,))
    assert over == (i, j)
    assert seen.large == 1
    assert ("masked_fill_" in seen.names) == (bad != 0.5)
    expected = torch.where(right == 0, 0, left * right)
    torch.testing.assert_close(found, expected, equal_nan=True)
    recorded, _ = select(left.clone().requires_grad_(), (i, j), right, (j,))
    torch.testing.assert_close(recorded, expected, equal_nan=True)
    mapped = torch.func.vmap(lambda row: select(row, (j,), right, (j,))[0])(left)
    torch.testing.assert_close(mapped, expected, equal_nan=True)


def test_zeros_look_at_what_they_meet(monkeypatch) -> None:
    """Whether zeros drop anything is asked of the values that they meet, not of the many numbers of a product."""
    asked = []
    original = dropped_zeros.has_finite_sum
    monkeypatch.setattr(
        dropped_zeros, "has_finite_sum", lambda tensor: asked.append(tensor.numel()) or original(tensor)
    )
    rows, batch, columns = Label(3), Label(50), Label(4)
    values, zeros = torch.rand(3, 4, dtype=torch.float64), torch.rand(50, 4, dtype=torch.float64).round()
    product, on = select(values, (rows, columns), zeros, (batch, columns))
    assert asked == [12]
    assert set(on) == {rows, batch, columns}
    values[1, 2] = torch.inf
    product, on = select(values, (rows, columns), zeros, (batch, columns), (rows, batch, columns))
    expected = torch.where(zeros == 0, 0, values[:, None] * zeros)
    torch.testing.assert_close(product.permute([on.index(x) for x in (rows, batch, columns)]), expected)
