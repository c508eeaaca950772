"""Answers by programs: what a call computes of a recorded graph is recorded in turn, and run when it comes again.

The key of a program holds all that planning looks at: the signature of the graph, and what the caller asked for. What a
key cannot tell (of the saved tensors: shapes, strides, entries of index tables) the program itself guards.

One law says when Python's work is worth its time: once the calls so far have lost half as much for want of it as it
takes (`PATIENCE`). A graph is recorded so, by the candidate whose program is estimated to take least; its program is
compiled after some runs more. Then other candidates are recorded in turn, each when it might have saved that part of
its recording, and the program that takes least is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._blocks.tracing import is_transformed
from .._capture.capture import Captured
from .._capture.graph import signature
from .._capture.recognise import recognise
from .._plan.cache import Cache, Entry
from .._plan.price import PATIENCE
from .._plan.program import RUNS, Program, program
from .._plan.recorder import Recorder, recorder
from .._plan.steps import MismatchError
from .._rules.registry import changes
from .._torch import default_device, dispatch_mode_count, is_watched_by_dynamo, sets_default_device
from .candidates import Candidate
from .factors import ProgramKey
from .progress import is_watched
from .report import warns

T = TypeVar("T")

#: Programs by their keys, and the most bytes that their tensors and steps take
PROGRAMS = Cache(64 << 20)

#: What a step and a register take
STEP_BYTES = 400

#: The time of a recording, in calls' worth of Python's work without a program
RECORDING = 4

#: So the call of a graph at which it is recorded is this one
RECORDED_AT = 1 + round(PATIENCE * RECORDING)

#: A graph of more nodes is never recorded: a program of it would fill the cache
MOST_NODES = 20_000

#: The failures of a program's guards in a row after which its key is given up
MOST_FAILURES = 3


def planned(
    captured: Captured,
    asked: tuple[Hashable, ...],
    compute: Callable[[Candidate | None], T],
    candidates: Callable[[float, T | None], Sequence[Candidate | None]] = lambda *_: (None,),
) -> T:
    """Return what ``compute`` gives of a captured call, by a program where one is known.

    ``asked`` is all that the result depends on beside the graph. The result is a tree of tuples and lists.
    ``candidates`` are the ways to compute it, the one that takes least for a first call and a number of programs first,
    of which some may be known by a result only; with None the choice is left to ``compute``.
    """
    source = captured.recorded
    outputs, nodes = source.outputs, source.graph.nodes
    graph = signature(source.graph, outputs) if may_plan(source) else None
    if graph is None:
        return compute(None)
    asked = (asked, captured.added)
    defaults = torch.get_default_dtype(), default_device()
    key = (graph, asked, torch.is_grad_enabled(), captured.records, defaults, changes())
    entry = PROGRAMS.get(key)
    if entry is None:
        # Where programs of Jacobians inside made the graph, it has taken Python's work at as many calls as theirs.
        calls = RECORDED_AT - 1 if source.ran else 0
        entry = Entry(None, 0, STEP_BYTES * len(nodes), calls, best=candidates(1, None)[0])
    if entry.calls + 1 < RECORDED_AT:
        PROGRAMS.put(key, entry._replace(calls=entry.calls + 1))
        return compute(entry.best)
    if entry.price is None:
        PROGRAMS.entries.pop(
            key, None
        )  # the key is from now on this one, with the signature that is recognised
        recognise(source.graph, outputs, graph)
        return _record(key, _origins(captured), compute, entry, candidates(RUNS, None)[0], candidates)
    if entry.left and entry.runs >= entry.left[0][1]:
        (candidate, _), *others = entry.left
        return _record(key, _origins(captured), compute, entry._replace(left=tuple(others)), candidate)
    if entry.program is None:
        if entry.left:
            PROGRAMS.put(key, entry._replace(calls=entry.calls + 1))
        return compute(entry.best)
    interpreted = entry.program.compiled is None
    try:
        result: T = entry.program.run(_origins(captured, entry.program))
    except MismatchError:
        return _mismatched(key, _origins(captured), compute, entry)
    if entry.failures:
        PROGRAMS.put(key, entry._replace(failures=0))
    if interpreted and entry.program.compiled is not None:
        left = _others(entry, candidates(inf, result)) if entry.left is None else entry.left
        PROGRAMS.put(key, entry._replace(failures=0, bytes=entry.bytes + STEP_BYTES * len(nodes), left=left))
    return result


def planned_answer(
    key: ProgramKey,
    asked: Hashable,
    parts: tuple[Tensor | float, ...],
    compute: Callable[[Sequence[Tensor | float]], T],
) -> T:
    """Return what ``compute`` gives of parts of what a program gave, by a program of its own where it is asked often.

    ``asked`` is all that the result depends on beside them and the program they are of.
    """
    if not may_record():
        return compute(parts)
    place = (key, asked, torch.is_grad_enabled(), default_device())
    entry = PROGRAMS.get(place)
    if entry is None:
        key.calls[asked] = calls = key.calls.get(asked, 0) + 1
        if calls < RECORDED_AT:
            return compute(parts)
        return _record(place, [parts], partial(_loaded, parts, compute), _UNKNOWN, None)
    if entry.program is None:
        return compute(parts)
    try:
        result: T = entry.program.run([parts])
    except MismatchError:
        return _mismatched(place, [parts], partial(_loaded, parts, compute), entry)
    return result


#: The entry of an answer before anything is known of it
_UNKNOWN = Entry(None, 0, STEP_BYTES, RECORDED_AT - 1)


def _loaded(
    parts: tuple[Tensor | float, ...], compute: Callable[[Sequence[Tensor | float]], T], _: Candidate | None
) -> T:
    """Compute a result of parts that a recorder takes for what comes from outside, numbers too."""
    found = recorder()
    if found is None:
        return compute(parts)
    values = list(parts)
    for k, part in enumerate(parts):
        if isinstance(part, Tensor):
            found.source(itemgetter(k), parts, part)
        else:
            values[k] = found.derived(itemgetter(k), (found.place(parts),), float(part))
    return compute(values)


def _origins(captured: Captured, known: Program | None = None) -> list[Any]:
    """Return the objects from outside that a program runs on: those that it reads, all without one."""
    source = captured.recorded
    found = [*source.graph.nodes, *source.outputs]
    if source is not captured:
        found += captured.made(known is None or known.last >= len(found))
    return found


def _mismatched(
    key: Hashable, origins: list[Any], compute: Callable[[Candidate | None], T], entry: Entry
) -> T:
    """Compute a result where a guard does not hold, and record that anew, unless guards failed often in a row."""
    if entry.failures < MOST_FAILURES:
        again = entry._replace(program=None, failures=entry.failures + 1)
        return _record(key, origins, compute, again, entry.best)
    PROGRAMS.put(key, entry._replace(program=None, failures=0, bytes=STEP_BYTES * len(origins)))
    return compute(entry.best)


def _record(
    key: Hashable,
    origins: list[Any],
    compute: Callable[[Candidate | None], T],
    entry: Entry,
    candidate: Candidate | None,
    candidates: Callable[[float, T | None], Sequence[Candidate | None]] | None = None,
) -> T:
    """Compute a result, and keep the program of that where it is cheaper than the one of an entry.

    Where there can be none, or it takes more than was estimated at most, others of the ``candidates`` take their turn.
    """
    result, made = recorded(origins, lambda: compute(candidate))
    if made is not None and made.bytes > PROGRAMS.most:  # it would drive all others out
        made = None
    price = _price(made, candidate)
    if entry.price is None or price < entry.price or (entry.program is None and entry.best == candidate):
        size = 0 if made is None else STEP_BYTES * len(made.registers) + made.bytes
        size += STEP_BYTES * len(origins)
        left = entry.left and tuple([(other, run) for other, run in entry.left if other.least < price])
        entry = entry._replace(
            program=made, bytes=size, calls=entry.runs, left=left, best=candidate, price=price
        )
    if candidates is not None and (made is None or (candidate is not None and 0 < candidate.most < price)):
        entry = entry._replace(left=_others(entry, candidates(inf, None)))
    PROGRAMS.put(key, entry)
    if entry.program is not None and torch.is_grad_enabled():
        # A graph is recorded of this, too: that of the calls to come, by which a Jacobian of it is planned.
        with suppress(MismatchError):
            result = entry.program.run(origins)
    return result


def recorded(origins: list[Any], compute: Callable[[], T]) -> tuple[T, Program | None]:
    """Return what ``compute`` gives, and the program of that where there can be one; see `Recorder`."""
    recording = Recorder(origins)
    with recording:
        result = compute()
    return result, program(recording, result)


def _others(entry: Entry, found: Sequence[Candidate | None]) -> tuple[tuple[Candidate, float], ...]:
    """Return the candidates that may take less than the best one does, each with the run at which it is recorded.

    By then it might have saved what to record it takes.
    """
    price, best = entry.price, entry.best
    others = []
    for other in found:
        if price is not None and best is not None and other is not None and other.name != best.name:
            saves = price - other.least
            if saves > 0:
                lost = RECORDING * other.python + other.most
                others.append((other, entry.runs + PATIENCE * lost / saves))
    return tuple(sorted(others, key=itemgetter(1)))


def _price(made: Program | None, candidate: Candidate | None) -> float:
    """Return what a program takes, or what is estimated of a candidate of which there can be none."""
    if made is not None:
        return made.price
    return candidate.python + candidate.each if candidate is not None and candidate.most else inf


def may_plan(captured: Captured) -> bool:
    """Tell whether all that is done with a recorded graph is done by ops that a recorder sees, and no one else."""
    return len(captured.graph.nodes) <= MOST_NODES and not captured.hooked and may_record()


def may_record() -> bool:
    """Tell whether ops come to a recorder as they are called, and to no one else."""
    return not (
        torch.compiler.is_dynamo_compiling()
        or is_watched_by_dynamo()  # it would read what the recorder does
        or dispatch_mode_count() > 0  # a trace is one
        or not sets_default_device()
        or is_transformed()
        or recorder() is not None
        or torch.is_anomaly_enabled()
        or is_watched()
        or warns()
    )
