"""The table of the GPU: tried on the CPU in small sizes, and a reason where there is no GPU."""

import pytest
import torch

from benchmarks import gpu


def test_table(capsys, monkeypatch):
    """Each line says that the values are right, and stands each way beside the others."""
    monkeypatch.setattr(gpu, "ENOUGH", 0.0)
    assert gpu.main(["--device", "cpu", "--small", "--dtype", "float64"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("the CPU, float64")
    assert len(lines) == len(gpu.CASES)
    assert all("values right" in line and "of torch.func" in line and "0 waits" in line for line in lines)


def test_without_a_gpu(capsys, monkeypatch):
    """It says so, and is no failure."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out.startswith("no GPU: ")


def test_no_time_left(capsys):
    """Lines that do not fit into the time are named."""
    gpu.main(["--device", "cpu", "--small", "--seconds", "-1"])
    assert capsys.readouterr().out.count("left out: -1 s are over") == len(gpu.CASES)


def test_wrong_values_are_noticed(monkeypatch):
    """A wrong answer is an error, not a time."""
    monkeypatch.setattr(gpu.torchjac, "jacrev", lambda f: lambda x: 2 * torch.func.jacrev(f)(x))
    with pytest.raises(AssertionError, match="not close"):
        gpu.line(gpu.SMALL[0], "cpu", torch.float64)
