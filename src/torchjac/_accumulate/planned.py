"""Answers by programs: what a call computes of a recorded graph is recorded in turn, and run when it comes again.

The key of a program holds all that planning looks at: the signature of the graph, and what the caller asked for. What a
key cannot tell (of the saved tensors: shapes, strides, entries of index tables) the program itself guards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from .._blocks.tracing import has_tangents, inside_functorch, is_tracing
from .._capture.capture import Captured
from .._capture.graph import signature
from .._capture.recognise import recognise
from .._plan.cache import Cache, Entry
from .._plan.program import program
from .._plan.recorder import Recorder, recorder
from .._plan.steps import MismatchError
from .._rules.registry import changes
from .._torch import dispatch_mode_count, function_mode_count
from .progress import is_watched
from .report import warns

T = TypeVar("T")

#: Programs by their keys; at most so many bytes of tensors and steps
PROGRAMS = Cache(64 << 20)

#: What a step and a register take
STEP_BYTES = 400

#: A graph of more nodes is recorded when it comes for the second time
NODES_AT_ONCE = 1000

#: A graph of more nodes is never recorded: a program of it would fill the cache
MOST_NODES = 20_000

#: So often a program may fail its guards in a row before its key is given up
MOST_FAILURES = 3


def planned(
    captured: Captured,
    asked: tuple[Hashable, ...],
    compute: Callable[[], T],
    otherwise: Callable[[], Callable[[], T] | None] = lambda: None,
) -> T:
    """Return what ``compute`` gives of a captured call, by a program where one is known.

    ``asked`` is all that the result depends on beside the graph. The result is a tree of tuples and lists.
    ``otherwise`` gives another way to compute it, if there is one: where a graph comes for the second time that way is
    taken, and from then on the cheaper one.
    """
    outputs, nodes = captured.outputs, captured.graph.nodes
    if len(nodes) > MOST_NODES or not _may_plan(captured):
        return compute()
    graph = signature(captured.graph, outputs)
    if graph is None:
        return compute()
    key = (graph, asked, torch.is_grad_enabled(), captured.records, torch.get_default_dtype(), changes())
    origins = [*nodes, *outputs]
    entry = PROGRAMS.get(key)
    if entry is None and len(nodes) > NODES_AT_ONCE:  # what is called once is not worth it
        PROGRAMS.put(key, Entry(None, 0, STEP_BYTES * len(nodes), 0))
        return compute()
    if entry is None or entry.weighed == 0:
        return _record(key, origins, compute, Entry(None, 0, 0))
    if entry.weighed == 1 and len(nodes) <= NODES_AT_ONCE:
        entry = entry._replace(weighed=2)  # be there another way or none, it is asked for once
        other = otherwise()
        if other is not None:
            return _record(key, origins, other, entry)
        PROGRAMS.put(key, entry)
    if entry.program is None:
        return compute()
    interpreted = entry.program.compiled is None
    try:
        result: T = entry.program.run(origins)
    except MismatchError:
        if entry.failures < MOST_FAILURES:
            return _record(key, origins, compute, Entry(None, entry.failures + 1, 0, 2))
        PROGRAMS.put(key, Entry(None, 0, STEP_BYTES * len(nodes), 2))
        return compute()
    if entry.failures:
        PROGRAMS.put(key, entry._replace(failures=0))
    if interpreted and entry.program.compiled is not None:
        # The key is from now on this one, with the signature that is recognised.
        PROGRAMS.entries.pop(key, None)
        PROGRAMS.put(key, entry._replace(failures=0, bytes=entry.bytes + STEP_BYTES * len(nodes)))
        recognise(captured.graph, outputs, graph)
    return result


def _record(key: Hashable, origins: list[Any], compute: Callable[[], T], entry: Entry) -> T:
    """Compute a result, and keep the program of that where it is cheaper than the one of an entry."""
    recording = Recorder(origins)
    with recording:
        result = compute()
    made, known = program(recording, result), entry.program
    if known is not None and (made is None or known.price <= made.price):
        made = known
    size = 0 if made is None else STEP_BYTES * len(made.registers) + made.bytes
    PROGRAMS.put(key, entry._replace(program=made, bytes=STEP_BYTES * len(origins) + size))
    return result


def _may_plan(captured: Captured) -> bool:
    """Tell whether what a call does is all done by ops that a recorder sees, for no one else to see or change."""
    return not (
        captured.hooked
        or is_tracing()
        or inside_functorch()
        or has_tangents()
        or recorder() is not None
        or torch.is_anomaly_enabled()
        or function_mode_count() > 0
        or dispatch_mode_count() > 0
        or is_watched()
        or warns()
    )
