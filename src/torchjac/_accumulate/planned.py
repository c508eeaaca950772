"""Answers by programs: what a call computes of a recorded graph is recorded in turn, and run when it comes again.

The key of a program holds all that planning looks at: the signature of the graph, and what the caller asked for. What a
key cannot tell (of the saved tensors: shapes, strides, entries of index tables) the program itself guards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch.autograd import forward_ad

from .._blocks.traced import inside_functorch, is_tracing
from .._capture.capture import Captured
from .._capture.graph import signature
from .._plan.cache import Cache, Entry
from .._plan.program import Program, program
from .._plan.recorder import Recorder, recorder
from .._plan.steps import MismatchError
from .progress import is_watched
from .report import warns

T = TypeVar("T")

#: Programs by their keys; at most so many bytes of tensors and steps
PROGRAMS = Cache(64 << 20)

#: What a step and a register take
STEP_BYTES = 400

#: So often a program may fail its guards in a row before its key is given up
MOST_FAILURES = 3


def planned(captured: Captured, asked: tuple[Hashable, ...], compute: Callable[[], T]) -> T:
    """Return what ``compute`` gives of a captured call, by a program where one is known.

    ``asked`` is all that the result depends on beside the graph. The result is a tree of tuples and lists.
    """
    if not _may_plan(captured):
        return compute()
    outputs, nodes = captured.outputs, captured.graph.nodes
    graph = signature(captured.graph, outputs)
    if graph is None:
        return compute()
    key = (graph, asked, torch.is_grad_enabled(), captured.records, torch.get_default_dtype())
    entry = PROGRAMS.get(key)
    origins = [*nodes, *outputs]
    failures = 0
    if entry is not None:
        if type(entry.program) is Program:
            try:
                result = entry.program.run(origins)
            except MismatchError:
                failures = entry.failures + 1
            else:
                if entry.failures:
                    PROGRAMS.put(key, entry._replace(failures=0))
                return result
        if entry.program is None or failures > MOST_FAILURES:
            if entry.program is not None:
                PROGRAMS.put(key, Entry(None, 0, STEP_BYTES * len(nodes)))
            return compute()
    recording = Recorder(origins)
    with recording:
        result = compute()
    made = program(recording, result)
    size = STEP_BYTES * (len(nodes) + (0 if made is None else len(made.registers))) + (
        0 if made is None else made.bytes
    )
    PROGRAMS.put(key, Entry(made, failures, size))
    return result


def _may_plan(captured: Captured) -> bool:
    return not (
        captured.hooked
        or is_tracing()
        or inside_functorch()
        or recorder() is not None
        or torch.is_anomaly_enabled()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._len_torch_dispatch_stack() > 0
        or is_watched()
        or warns()
    )
