"""Time: a first call under a limit, and medians of calls that take turns."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any

#: A turn lasts at least so long, so that the clock, an interruption and what the peer before left in the caches do not
#: decide it: after a call that moved a hundred megabytes, the next ones of half a millisecond take twice that.
TURN = 0.01
LEAST_TURNS = 5
MOST_TURNS = 100
#: What is read: the time that passes, or, on a machine that is busy with other things, what the process used of it.
CLOCKS = {"wall": perf_counter, "cpu": process_time, "thread": thread_time}


class TooSlowError(BaseException):
    """A call was stopped at its limit; no library that catches every Exception may keep it for itself."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooSlowError` at the first bytecode after so many seconds: a single long op is not cut short."""

    def stop(*_: Any) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second, should one be lost in a callback
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def turn(call: Callable[[], Any], times: int = 1, clock: str = "wall") -> float:
    """Seconds a call, over so many calls in a row."""
    now = CLOCKS[clock]
    start = now()
    for _ in range(times):
        call()
    return (now() - start) / times


@dataclass
class Timed:
    """One peer's turns so far."""

    call: Callable[[], Any]
    times: int
    once: float
    spent: float
    turns: list[float]


def alternate(
    calls: dict[str, Callable[[], Any]], seconds: float, clock: str = "wall"
) -> dict[str, tuple[float, int] | None]:
    """The median seconds of each call and its number of turns; each gets about so many seconds in all.

    The calls take turns, in one order and then in the other, so that whatever slows the machine down for a
    while slows them all. Who has spent its seconds, and has had `LEAST_TURNS`, drops out; a call that takes
    longer than all its seconds has two turns, and one that takes ten times as long has one.

    A turn of a single call is preceded by one that is not timed: memory that the kernel has just taken back from
    a caller before, in small pages, costs the next one up to thirty times what it costs from then on (768 MB:
    1.2 s, then 0.04 s). None stands for a call that failed, as its first one had not: memory ran out.
    """
    timed = {}
    for name, call in calls.items():
        try:
            once = turn(call, clock=clock)
        except (MemoryError, RuntimeError):
            continue
        once = min(once, turn(call, clock=clock)) if once < seconds else once
        turns = [once] if once >= seconds else []
        timed[name] = Timed(call, max(1, round(TURN / max(once, 1e-7))), once, 0.0, turns)
    going = [peer for peer in timed.values() if not peer.turns or peer.turns[0] < 10 * seconds]
    while going:
        for peer in going:
            if peer.times == 1 and peer.once < seconds:
                peer.call()
            peer.turns.append(turn(peer.call, peer.times, clock))
            peer.spent += peer.turns[-1] * peer.times
        going = [peer for peer in reversed(going) if not finished(peer, seconds)]
    found: dict[str, tuple[float, int] | None] = dict.fromkeys(calls)
    return found | {name: (median(peer.turns), len(peer.turns)) for name, peer in timed.items()}


def finished(peer: Timed, seconds: float) -> bool:
    """Whether a peer has had its share."""
    if len(peer.turns) >= MOST_TURNS:
        return True
    least = LEAST_TURNS if peer.spent < 3 * seconds else 2
    return peer.spent >= seconds and len(peer.turns) >= least
