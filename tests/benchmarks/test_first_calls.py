"""The command that times first calls: what it takes by name, and that it prints its table."""

import torch

import torchjac
from benchmarks import first_calls


def test_cases():
    """Two cases of its own and all everyday calls, of order 1 or 2, or 0 (a sparse Hessian)."""
    cases = first_calls.cases()
    assert {"60 steps of a recurrence", "convolutions 64x64", "planar arm 7"} <= set(cases)
    assert {order for _, order in cases.values()} == {0, 1, 2}


def test_first_call(monkeypatch):
    """An unlike program is compiled before the one that is timed."""
    dtype, compiled = torch.get_default_dtype(), []
    monkeypatch.setattr(torchjac, "compile", lambda func: lambda x: compiled.append(func(x).shape))
    try:
        assert 0 <= first_calls.first_call("lorenz", "ours") < 60
    finally:
        torch.set_default_dtype(dtype)
    assert compiled == [(7, 7), (3, 3)]


def test_table(monkeypatch, capsys, tmp_path):
    """A row for each, with the ratio; a call that fails has none; a table that was begun is gone on with."""
    times = iter([2.0, 4.0, 0.5, 3.0, None, 1.0])
    monkeypatch.setattr(first_calls, "in_process", lambda name, way, cache: next(times))
    monkeypatch.setattr(
        "sys.argv", ["first_calls.py", "--only", "^lorenz$|^robertson$", "--out", str(tmp_path / "out")]
    )
    first_calls.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows[0] == ["ours", "torch", "ratio", "again"]
    assert rows[1] == ["lorenz", "2.00", "4.00", "0.50", "0.50"]
    assert rows[2] == ["robertson", "3.00", "-", "-", "1.00"]
    assert (tmp_path / "out").read_text().splitlines()[2].split() == rows[1]
    table = (tmp_path / "out").read_text()
    first_calls.main()
    assert (tmp_path / "out").read_text() == table


def test_smallest():
    """Of functions that differ in their sizes alone the first stays; with a sample, some of these."""
    assert first_calls.smallest(
        ["lorenz", "arm 2", "arm 7", "net 1x8", "net 4x8", "lorenz 96 8", "lorenz 96 40"]
    ) == [
        "lorenz",
        "arm 2",
        "net 1x8",
        "lorenz 96 8",
    ]
    names = first_calls.smallest(list(first_calls.cases()))
    assert {"60 steps of a recurrence", "planar arm 2", "lorenz 96 8"} <= set(names)
    assert len(names) < len(first_calls.cases()) * 0.6
