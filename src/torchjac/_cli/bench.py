"""Ways to the same Jacobian timed in turn, so that whatever else the machine does meets all of them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from .errors import Limit, Stop, first_line, within
from .measure import dense_bytes, does_not_fit, timed
from .peers import WAYS
from .request import FunctionCall

#: The least and the most calls of each way, however long a call takes.
LEAST_ROUNDS = 3
MOST_ROUNDS = 1000


class Timing(NamedTuple):
    """Seconds of each call of one way, in order; ``failed`` says why there are none."""

    way: str
    times: list[float]
    failed: str = ""

    @property
    def median(self) -> float:
        """The median of the times."""
        return median(self.times)


def bench(problem: FunctionCall, budget: float, limit: Limit) -> list[Timing]:
    """Round after round of all ways until ``budget`` seconds are spent, the first round left out.

    At the end of the limit a way that was not called yet says so, and the rounds that are done count.
    """
    with within(limit, problem.in_words()):
        size = dense_bytes(problem, problem.value())
    timings = [Timing(way, [], does_not_fit(way, size)) for way in WAYS]
    transforms = {way: make(problem.function, problem.argnums) for way, make in WAYS.items()}
    timings = [_first(timing, transforms[timing.way], problem, limit) for timing in timings]
    running = [timing for timing in timings if not timing.failed]
    spent, rounds = 0.0, 0
    try:
        while rounds < LEAST_ROUNDS or (spent < budget and rounds < MOST_ROUNDS):
            with within(limit, "a round"):
                times = [timed(transforms[timing.way], problem) for timing in running]
            for timing, seconds in zip(running, times, strict=True):
                timing.times.append(seconds)
            spent, rounds = spent + sum(times), rounds + 1
    except Stop as stop:
        if not rounds:
            return [timing if timing.failed else timing._replace(failed=str(stop)) for timing in timings]
    return timings


def _first(timing: Timing, transform: Callable[..., Any], problem: FunctionCall, limit: Limit) -> Timing:
    """Return the way as it is, or with the reason why it fails on this function."""
    if timing.failed:
        return timing
    if not limit.left():
        return timing._replace(failed="not timed, as the time is up (--limit)")
    try:
        with within(limit, "a call"):
            timed(transform, problem)
    except Stop as stop:
        return timing._replace(failed=str(stop))
    except Exception as error:  # whatever another library raises
        return timing._replace(failed=f"{type(error).__name__}: {first_line(error)}")
    return timing
