"""One process: a few workloads, one after the other, with all their peers; or their memory. Writes JSON as it goes.

It is told what to do by its one argument, as JSON: `{"workloads": [["sine", {"n": 2000}]], "dtypes": ["float64"], …}`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch._dynamo  # what torch.func imports at its first call, which may be stopped in the middle of that

from . import workloads  # noqa: F401 - fills ENTRIES
from .answers import NotForThisError, Numbers, difference
from .memory import beyond_answer, limit_memory
from .peers import PEERS, Built, Peer
from .problem import Problem
from .timing import TooSlowError, alternate, limited, turn
from .workload import ENTRIES, Workload
from .workloads.dense import sine

#: How far two right answers may stand apart, relative to the largest entry.
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}

#: Nothing of a call of torch.func that takes so many seconds is only the first call's: it is not made again.
LONG = 3.0


def make(task: dict[str, Any]) -> Workload:
    """The workload a task names by the function that makes it, and its size."""
    (entry, *_) = [entry for entry in ENTRIES if entry.make.__name__ == task["make"]]
    return entry.make(**task["size"])


def wanted(peer: Peer, task: dict[str, Any], workload: Workload, dtype: str) -> bool:
    """Whether a peer runs in this task: by its name, by its form of answer, and by whether it compiles."""
    if (peer.answer == "dense" or peer.name == "writing") and not workload.dense:
        return False
    if peer.compiles and dtype not in task["compile"]:
        return False
    if peer.flagged and not (workload.compiled or task.get("compile_all")):
        return False
    if f"{peer.name}|{peer.answer}" in task.get("without", ()):
        return False
    return is_asked(peer, task)


def is_asked(peer: Peer, task: dict[str, Any]) -> bool:
    """Whether a peer is among those named, if any are."""
    return not task["peers"] or any(word.lower() in peer.name.lower() for word in task["peers"])


def first_call(peer: Peer, problem: Problem, limit: float) -> tuple[dict[str, Any], Built | None, Any]:
    """Make a peer and call it once: what is to be told, the peer, and its answer."""
    if peer.compiles:
        load_inductor()
        torch.compiler.reset()
    answers: list[Any] = []
    start = perf_counter()
    too_slow = {"status": "too slow", "why": f"> {limit:g} s"}, None, None
    try:
        with limited(limit):
            built = peer.make(problem)
            first = turn(lambda: answers.append(built.call()))
    except NotForThisError as reason:
        return {"status": "not for this", "why": str(reason)}, None, None
    except ImportError as error:
        return {"status": "missing", "why": str(error)}, None, None
    except TooSlowError:
        return too_slow
    except MemoryError:
        return {"status": "out of memory"}, None, None
    except Exception as error:
        if perf_counter() - start > limit:  # compiled code may make an error of its own of being stopped
            return too_slow
        text = str(error).strip().splitlines()
        memory = any(word in str(error).lower() for word in ("allocate", "out of memory"))
        why = f"{type(error).__name__}: {text[0] if text else ''}"[:200]
        return {"status": "out of memory" if memory else "fails", "why": why}, None, None
    return {"status": "ok", "first": first, **built.notes}, built, answers[0]


@cache
def load_inductor() -> None:
    """Compile something small, so that no peer's first call pays for loading the compiler, or what transforms need."""
    torch.compile(torch.func.jacrev(torch.sin))(torch.ones(2))


def measure(
    task: dict[str, Any], dtype: str, slow: set[str], report: Callable[[dict[str, Any]], None]
) -> None:
    """First calls and checks of every peer in turn, then the alternating timing of those that are right.

    Who was too slow in a dtype before is not asked again; ``slow`` is added to.
    """
    workload = make(task)
    problem = Problem(workload, dtype)
    torchjac_numbers: dict[str, Numbers] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for peer in PEERS:
        if not wanted(peer, task, workload, dtype):
            continue
        if f"{peer.name}|{peer.answer}" in slow:
            report({"peer": peer.name, "answer": peer.answer, "status": "too slow", "why": "as f64"})
            continue
        told, built, answer = first_call(peer, problem, task["limit"])
        row = {"peer": peer.name, "answer": peer.answer, **told}
        if built is not None and peer.answer:
            numbers = built.numbers(answer)
            ours = torchjac_numbers.setdefault(peer.answer, numbers)
            row["difference"] = difference(ours, numbers)
            if isinstance(numbers, list):
                row["entries"] = sum(part.size for part in numbers)
            if not row["difference"] <= TOLERANCE[dtype]:
                row["status"] = "differs"
        if row["status"] == "ok" and row["first"] > LONG and peer.name.startswith("torch.func"):
            row |= {"seconds": row["first"], "turns": 1}
        elif built is not None and row["status"] == "ok":
            calls[f"{peer.name}|{peer.answer}"] = built.call
        if row["status"] == "too slow":
            slow.add(f"{peer.name}|{peer.answer}")
        large = row.get("entries", 0) > 1_000_000
        built = answer = None
        gc.collect(2 if large else 0)
        report(row)
    torchjac_numbers.clear()
    for name, found in alternate(calls, task["seconds"], task["clock"]).items():
        peer_name, answer_kind = name.split("|")
        row = {"peer": peer_name, "answer": answer_kind}
        if found is None:
            report({**row, "status": "out of memory", "why": "in a later call than the first"})
        else:
            report({**row, "seconds": found[0], "turns": found[1]})
    if workload.tiny:
        report({"nodes": recorded_nodes(problem)})


def measure_memory(task: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """The memory of each peer of the task, in a fork of this process, which has used nothing but small things."""
    for peer in PEERS:
        if peer.answer != "dense" or peer.name not in task["memory"] or not is_asked(peer, task):
            continue
        # What a first use loads and imports is not counted.
        peer.make(Problem(sine(5), "float64")).call()
        fork = os.fork()
        if fork:
            os.waitpid(fork, 0)
            continue
        try:
            report(interned(peer, task))
        finally:
            os._exit(0)


def interned(peer: Peer, task: dict[str, Any]) -> dict[str, Any]:
    """One peer's memory beyond its answer, or why there is none."""
    row: dict[str, Any] = {"peer": peer.name, "answer": "dense"}
    try:
        with limited(task["limit"]):
            found = beyond_answer(peer.make(Problem(make(task), "float64")).call)
    except NotForThisError:
        return row
    except (TooSlowError, MemoryError, RuntimeError) as error:
        return {**row, "memory": "too slow" if isinstance(error, TooSlowError) else "out of memory"}
    return row if found is None else {**row, "memory": found[0], "answer_bytes": found[1]}


def forget() -> None:
    """Drop what compilers keep of a workload."""
    torch.compiler.reset()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()


def recorded_nodes(problem: Problem) -> int:
    """How many nodes autograd records for the function."""
    x = problem.x.detach().requires_grad_()
    seen, stack = set(), [problem.function(x, *problem.constants).grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [following for following, _ in node.next_functions]
    return len(seen)


def main(argument: str) -> None:
    """Run one task and write each finding as a line of JSON."""
    task = json.loads(argument)
    torch.set_num_threads(task["threads"])
    limit_memory(task["gigabytes"])
    gc.freeze()  # what the libraries hold is not searched again and again
    with Path(task["out"]).open("w") as out:

        def report(row: dict[str, Any], **more: Any) -> None:
            out.write(json.dumps({**more, **row}) + "\n")
            out.flush()

        for number, (name, size) in enumerate(task["workloads"]):
            start = perf_counter()
            one = {**task, "make": name, "size": size}
            if task.get("memory"):
                measure_memory(one, partial(report, number=number, dtype="float64"))
            else:
                slow: set[str] = set()
                for dtype in task["dtypes"]:
                    measure(one, dtype, slow, partial(report, number=number, dtype=dtype))
            report({"number": number, "took": perf_counter() - start})
            forget()


if __name__ == "__main__":
    main(sys.argv[1])
