"""Blocks pushed through nodes on seeds: what is tied rides along."""

import pytest
import torch
import torch.nn.functional as F

from torchjac import jacobian
from torchjac.testing import check_jacobian, loop_jacobian


def test_a_batch_rides_where_each_sample_has_places_of_its_own() -> None:
    """A pool picks other places in each sample; the convolution above it is still pushed once for all samples."""
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    out = torch.randn(8, 5, dtype=torch.float64)

    def f(x):
        return F.max_pool2d(F.conv2d(x, weight, padding=1).tanh(), 2).flatten(1) @ out

    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    check_jacobian(f, x)
    assert jacobian(f)(x).stored == 3 * 5 * 16


def test_gathered_rows_ride_along_a_softmax() -> None:
    """A label that stands in a tied dim and in a table of another dim is tied all the same."""
    index = torch.randint(4, (3, 5), generator=torch.Generator().manual_seed(0))

    def f(x):
        return x.cumsum(0).exp().softmax(1).gather(1, index)

    check_jacobian(f, torch.randn(3, 4, dtype=torch.float64))
    jac = jacobian(lambda x: x.softmax(1).gather(1, index).cos())(torch.randn(3, 4, dtype=torch.float64))
    assert all(block.out[0] == block.wrt[0] for block in jac.blocks)
    assert jac.stored <= 3 * 5 * 4


def test_windows_that_overlap_do_not_ride() -> None:
    """Two labels that meet at one position, as windows do, each need seeds of their own."""
    check_jacobian(lambda x: x.softmax(1).unfold(0, 2, 1), torch.randn(5, 3, dtype=torch.float64))


def test_seeds_go_by_a_formula_for_rows(monkeypatch) -> None:
    """Where one stands for rows in front no vmap is entered, and the answer is the loop's."""
    monkeypatch.setattr("torchjac._accumulate.call_rows.map_rows", lambda *_: pytest.fail("vmap"))
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    f = lambda x: torch.softmax(x, 1).sin()
    J = jacobian(f)(x)
    assert [step.calls for step in J.report.steps if step.name == "SoftmaxBackward0"] == [1]
    torch.testing.assert_close(J.to_dense(), loop_jacobian(f, x))
