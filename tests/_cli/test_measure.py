"""Costs: measured in a process of its own, and not tried where they cannot fit."""

import os
import subprocess
import sys

import pytest

from torchjac._cli import measure as module
from torchjac._cli.measure import dense_bytes, does_not_fit, in_fresh_process
from torchjac._cli.memory import available
from torchjac._cli.peers import BLOCKS, DENSE, PEER, WAYS
from torchjac._cli.request import Request

from .conftest import MODEL


def test_dense_bytes():
    """All outputs by all differentiated inputs."""
    problem = Request(f"{MODEL}:tree", ("3,4", "float32:4,2"), argnums=(0, 1)).load()
    problem = problem._replace(arguments=(problem.arguments[0], problem.arguments[1].double()))
    assert dense_bytes(problem, problem.value()) == 8 * (6 + 3) * (12 + 8)


def test_does_not_fit(monkeypatch):
    """A dense way is not tried where it would take more than there is; blocks always are."""
    monkeypatch.setattr(module, "available", lambda: 1000)
    assert does_not_fit(PEER, 250) == ""
    assert does_not_fit(PEER, 251) == "does not fit: the dense tensor takes 251 B"
    assert does_not_fit(BLOCKS, 10**15) == ""
    monkeypatch.setattr(module, "available", lambda: None)
    assert does_not_fit(DENSE, 10**15) == ""


def test_fresh_process():
    """Each way tells a time and a peak; a dense answer of 8 MB takes at least as much, the blocks less."""
    request = Request(f"{MODEL}:stencil", ("1000",))
    costs = {way: in_fresh_process(request, way, limit=300) for way in WAYS}
    assert [cost.failed for cost in costs.values()] == ["", "", ""]
    assert all(cost.seconds > 0 for cost in costs.values())
    if costs[DENSE].peak is not None:
        assert costs[DENSE].peak > 7_500_000
        assert costs[BLOCKS].peak < 4_000_000


def test_failures():
    """An error of a way is told by its last line; one that takes too long is given up."""
    request = Request(f"{MODEL}:mixed", ("4",))
    failed = in_fresh_process(request, PEER, limit=300).failed
    assert failed.startswith("RuntimeError: In order to use an autograd.Function with functorch")
    assert in_fresh_process(request, BLOCKS, limit=0.01).failed == "took more than 0.01 s"
    assert in_fresh_process(request, BLOCKS, limit=0.0).failed == "not measured, as the time is up (--limit)"


def test_peak_sees_what_is_freed_again():
    """The high-water mark counts, not what is left; only in a fresh process, where no freed memory is used again."""
    code = (
        "import torch; from torchjac._cli.memory import Peak\n"
        "peak = Peak(torch.device('cpu')); torch.ones(30_000_000); print(peak.bytes())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() == "None":
        pytest.skip("this system does not tell the memory of a process")
    assert 100_000_000 < int(done.stdout) < 150_000_000


def test_available():
    """Some memory can be had, where the system tells it."""
    assert available() is None or available() > 0
