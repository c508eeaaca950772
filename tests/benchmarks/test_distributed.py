"""What the benchmark of ranks measures, on a small grid and in this process."""

import pytest
import torch

from benchmarks import distributed


@pytest.mark.parametrize("way", ["one process", "a rank"])
def test_measured(way, tmp_path, monkeypatch):
    """Times and the halo of a single rank, which reads nothing of others; both ways measure the same things."""
    monkeypatch.setattr(distributed, "TURNS", 2)
    if way == "a rank":
        distributed.rank(0, 1, 16, str(tmp_path))
    else:
        distributed.one_process(16, str(tmp_path))
    ((*times, found, product, halo),) = torch.load(tmp_path / "told", weights_only=True)
    assert len(times) == 8  # of four things, by two clocks
    assert all(seconds > 0 for seconds in times)
    assert found >= 0
    assert product >= 0
    assert halo == 0


def test_whole_grid_is_the_local_function():
    """The function of one process is that of the ranks: with lines of the other side as the first and last."""
    state = torch.randn(5, 2, 7, dtype=torch.float64)
    around = torch.cat([state[-1:], state, state[:1]])
    assert torch.equal(distributed.whole_grid(state, 7), distributed.brusselator(around, 7))
