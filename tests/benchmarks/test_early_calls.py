"""The command that times the first calls of everyday functions: the table, and what its rows say together."""

import pytest
import torch

from benchmarks import early_calls


def test_table(monkeypatch, capsys):
    """Times over that of the best of torch.func; sums go on with warm calls after those that were timed."""
    times = {
        "lorenz": (0.5, [1.0] * early_calls.EARLY, 0.25),
        "robertson": (1.0, [1.0] * early_calls.EARLY, 0.5),
    }
    monkeypatch.setattr(early_calls, "early", lambda call, clock, repeats: times[call.name])
    monkeypatch.setattr(early_calls, "fresh", lambda module: (0.5, 0.002))
    monkeypatch.setattr("sys.argv", ["early_calls.py", "--only", "^lorenz$|^robertson$"])
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        early_calls.main()
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows[0] == ["lorenz", "500000", *["2.00"] * len(early_calls.SHOWN), "0.50"]
    assert rows[2] == ["geometric", "mean", *["1.41"] * len(early_calls.SHOWN), "0.50"]
    assert " ".join(rows[3]) == "the first 1: mean 1.41 of torch.func's, worst 2.00, 1 of 2 above 1"
    worst = (2 * early_calls.EARLY + 0.5 * (100 - early_calls.EARLY)) / 100
    assert f"worst {worst:.2f}" in " ".join(rows[-3])
    assert " ".join(rows[-2]) == "torchjac in a new process: 0.50 s to import, 2 ms for jacrev(sin)"


def test_fresh():
    """A process that imports the library and calls it once."""
    assert min(early_calls.fresh("torchjac")) > 0


@pytest.mark.parametrize("name", ["lorenz", "rosenbrock 2"])
def test_early(name):
    """A Jacobian and a Hessian: so many calls, all of which take time."""
    (call,) = [call for call in early_calls.CALLS if call.name == name]
    theirs, calls, warm = early_calls.early(call, "wall", 1)
    assert len(calls) == early_calls.EARLY
    assert min(theirs, warm, *calls) > 0
