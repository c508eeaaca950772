"""Timing in turn: every way once a round, and a reason where one has no time."""

import time

from torchjac._cli import bench as module
from torchjac._cli import measure
from torchjac._cli.bench import LEAST_ROUNDS, bench
from torchjac._cli.errors import Limit
from torchjac._cli.peers import BLOCKS, DENSE, PEER
from torchjac._cli.request import Request

from .conftest import MODEL


def test_rounds_are_interleaved(monkeypatch):
    """One call of each way after another, not one way after another; the first of each is left out."""
    order = []
    problem = Request(f"{MODEL}:stencil", ("5",)).load()

    def note(transform, problem):
        order.append(transform)
        return 1.0

    monkeypatch.setattr(module, "timed", note)
    timings = bench(problem, 0.0, Limit(None))
    assert [len(timing.times) for timing in timings] == [LEAST_ROUNDS] * 3
    assert order == order[:3] * (LEAST_ROUNDS + 1)
    assert len(set(order[:3])) == 3
    assert [len(timing.times) for timing in bench(problem, 30.0, Limit(None))] == [10] * 3


def test_reasons(monkeypatch):
    """A way that fails says how, one that does not fit is not tried, and the others go on."""
    problem = Request(f"{MODEL}:mixed", ("4",)).load()
    found = {timing.way: timing for timing in bench(problem, 0.0, Limit(None))}
    assert found[PEER].failed.startswith("RuntimeError: In order to use")
    assert found[PEER].times == []
    assert found[BLOCKS].median > 0
    monkeypatch.setattr(measure, "available", lambda: 0)
    found = {timing.way: timing for timing in bench(problem, 0.0, Limit(None))}
    assert found[DENSE].failed.startswith("does not fit")
    assert len(found[BLOCKS].times) == LEAST_ROUNDS


def test_the_limit_ends_the_rounds(monkeypatch):
    """Rounds that are done count; without one each way says why it has no time."""
    problem = Request(f"{MODEL}:stencil", ("5",)).load()
    for calls_in_time, rounds in ((9, 2), (4, 0)):
        calls = []

        def slow(transform, problem):
            calls.append(transform)
            if len(calls) > calls_in_time:
                time.sleep(60)
            return 1.0

        monkeypatch.setattr(module, "timed", slow)
        timings = bench(problem, 1000.0, Limit(2.0))
        assert [len(timing.times) for timing in timings] == [rounds] * 3
        assert all(("a round took more than 2 s" in timing.failed) == (not rounds) for timing in timings)
