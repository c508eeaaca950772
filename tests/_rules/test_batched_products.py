"""Rows through products of matrices: one product for all rows, and for all samples where they are the same."""

import pytest
import torch
from tests.allocations import Alive

from torchjac._rules.products_of_rows import times

D = torch.float64


SHAPES = [(3, 4, 5), (3, 2, 3), (3, 4, 1), (1, 4, 5), (3, 1, 5), (0, 4, 5), (3, 0, 5), (3, 4, 0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_times_a_factor(shape, batch, constant, turned):
    """The product is that of each row, whatever the layout of the rows and of the factor."""
    count, lines, inner = shape
    rows = torch.randn(count, *batch, lines, inner, dtype=D)
    if constant:
        rows = rows[:, :1].expand_as(rows)
    if turned:
        rows = rows.mT.contiguous().mT
    factor = torch.randn(*batch, 6, inner, dtype=D).mT
    torch.testing.assert_close(times(rows, factor), torch.matmul(rows, factor))


def test_no_copy_of_the_factor_for_each_row():
    """A product takes its result, and the rows once more; of rows that are the same, those of one."""

    def most(rows, factor):
        with Alive() as seen:
            result = times(rows, factor)
        return seen.most // 8, result

    rows, factor = torch.rand(50, 4, 3, 8, dtype=D), torch.rand(4, 8, 6, dtype=D)
    one = rows[:, :1].expand(50, 4, 3, 8)
    assert most(rows, factor)[0] == rows.numel() + 50 * 4 * 3 * 6
    assert most(one, factor)[0] == one[:, 0].numel() + factor.numel() + 50 * 4 * 3 * 6
    assert most(rows[:, :, 0], factor[0])[0] == rows[:, :, 0].numel() + 50 * 4 * 6
    taken, result = most(one[:, :, 0], factor[0])
    assert (taken, result.shape, result.stride(1)) == (50 * 6, (50, 4, 6), 0)


@pytest.mark.parametrize(("lines", "inner", "outer", "calls"), [(3, 1, 9, 0), (4, 4, 4, 0), (4, 4, 5, 1)])
def test_small_matrices_are_not_laid_beside_each_other(lines, inner, outer, calls, monkeypatch):
    """Rows of matrices of a few entries are multiplied as they stand, those over a dim of one entry by entry."""
    made, own = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *factors: made.append(factors) or own(*factors))
    rows, factor = torch.rand(2, 7, lines, inner, dtype=D), torch.rand(7, inner, outer, dtype=D)
    torch.testing.assert_close(times(rows, factor), rows @ factor)
    assert len(made) == calls
