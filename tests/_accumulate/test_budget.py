"""A budget of memory: what is alive is counted, and an op that would make too much is not run."""

import gc

import pytest
import torch
from tests.allocations import Alive

from torchjac._accumulate.budget import Budget, OverBudgetError


def test_what_is_alive() -> None:
    """Memory counts once, however many views there are, from when an op made it until the last is gone."""
    before = torch.ones(1000, dtype=torch.float64)
    with Budget(10**6) as budget:
        x = before[10:].view(-1, 2)
        x.add_(1)
        assert budget.live == 0
        x = x * 2
        y = x.t()[1:]
        del x
        assert budget.live == 990 * 8
        del y
        assert (budget.live, budget.peak) == (0, 990 * 8)
        torch.linalg.qr(torch.eye(10, dtype=torch.float64))
    assert budget.live == 0


def test_inside_vmap_and_backward() -> None:
    """What the engine and batched ops make is counted as well; the meta device makes nothing."""
    x = torch.randn(30, dtype=torch.float64, requires_grad=True)
    y = x.exp()
    with Budget(10**6) as budget:
        rows = torch.func.vmap(lambda row: torch.autograd.grad(y, x, row, retain_graph=True)[0])(
            torch.ones(20, 30, dtype=torch.float64)
        )
        assert budget.live == rows.numel() * 8
        assert budget.peak >= 2 * rows.numel() * 8
        torch.zeros(10**9, device="meta")


LARGE = {
    "empty": lambda: torch.empty(10**12),
    "eye": lambda: torch.eye(10**6),
    "diag": lambda: torch.diag_embed(torch.ones(50_000)),
    "outer": lambda: torch.ones(20_000, 1) @ torch.ones(1, 20_000),
    "broadcast": lambda: torch.ones(20_000, 1) * torch.ones(20_000),
    "repeat": lambda: torch.ones(10, 10).repeat(10**5, 10**5),
    "cat": lambda: torch.cat([torch.ones(()).expand(10**10)] * 2),
    "index": lambda: torch.ones(50, 50)[torch.zeros((), dtype=torch.int64).expand(10**8)],
    "vmap": lambda: torch.func.vmap(lambda row: row * torch.ones(10_000))(torch.ones(20_000, 1)),
    "into": lambda: torch.ones(()).new_zeros(10**10),
}


@pytest.mark.parametrize("name", LARGE)
def test_too_much_is_never_made(name) -> None:
    """An op is refused before it runs, whatever makes its result large."""
    with Alive() as alive, pytest.raises(OverBudgetError, match=r"bytes at aten\S+ of 1,000,000"):
        with Budget(10**6):
            LARGE[name]()
    gc.collect()
    assert alive.most < 10**6


def test_what_no_shape_tells() -> None:
    """An op whose result depends on values is refused when it has run."""
    x = torch.ones(1000)
    with pytest.raises(OverBudgetError), Budget(10_000):
        x.nonzero().float().repeat_interleave(torch.full((1000,), 3), 0)
