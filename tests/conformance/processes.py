"""The ops shared among worker processes, so that one that crashes or takes too long is an error of its own."""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
from tests.conformance.modes import check
from tests.conformance.problems import brief, problem_or_skip
from tests.conformance.samples import differentiable_ops, in_fraction, label, samples
from tests.conformance.walks import WALKS


@dataclass
class Result:
    """The outcome of one sample in one mode, with its place."""

    op: str
    sample: int
    mode: str
    status: str
    note: str
    diff: float
    seconds: float
    walk: dict[str, Any] | None = None


def run_op(op: Any, options: argparse.Namespace) -> Iterator[Result]:
    """Every chosen sample of an op in every chosen mode."""
    name = label(op)
    try:
        found = samples(op, options.dtype)
    except Exception as error:
        yield Result(name, -1, "all", "loop fails", f"no samples: {brief(error)}", 0.0, 0.0)
        return
    for index, sample in enumerate(found):
        if options.sample is not None and index != options.sample:
            continue
        if options.fraction and not in_fraction(name, index, *options.fraction):
            continue
        shared = problem_or_skip(op, sample, options.complex_outputs)
        for mode in options.modes:
            for walk in options.walks:
                outcome = check(op, sample, mode, WALKS[walk], shared)
                yield Result(name, index, f"{mode} {walk}", **asdict(outcome))


def _work(connection: Any, options: argparse.Namespace) -> None:
    """A worker: receives an op's number, sends its results, then None."""
    torch.set_num_threads(1)
    ops = differentiable_ops(options.dtype)
    while (number := connection.recv()) is not None:
        for result in run_op(ops[number], options):
            connection.send(result)
        connection.send(None)


def run_all(options: argparse.Namespace) -> list[Result]:
    """Share the ops among worker processes; an op that crashes its process or takes too long is an error."""
    names = [label(op) for op in differentiable_ops(options.dtype)]
    todo = [n for n, name in reversed(list(enumerate(names))) if re.search(options.ops, name)]
    results: list[Result] = []
    working: dict[Any, tuple[Any, int, float]] = {}

    def start() -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=_work, args=(theirs, options), daemon=True)
        process.start()
        theirs.close()
        give(ours, process)

    def give(connection: Any, process: Any) -> None:
        number = todo.pop() if todo else None
        connection.send(number)
        if number is not None:
            working[connection] = (process, number, time.monotonic())
        else:
            working.pop(connection, None)

    def lose(connection: Any, reason: str) -> None:
        process, number, began = working.pop(connection)
        process.terminate()
        results.append(Result(names[number], -1, "all", "error", reason, 0.0, time.monotonic() - began))
        if todo:
            start()

    for _ in range(min(options.jobs, len(todo))):
        start()
    while working:
        for connection in wait(list(working), timeout=1.0):
            process, number, _ = working[connection]
            try:
                result = connection.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                lose(connection, f"the process died, exit code {process.exitcode}")
                continue
            if result is None:
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r{len(todo):4d} ops to go  {names[number]:60.60s}")
                    sys.stderr.flush()
                give(connection, process)
            else:
                results.append(result)
        for connection, (_, _, began) in list(working.items()):
            if time.monotonic() - began > options.limit:
                lose(connection, f"more than {options.limit} s")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return results
