"""Time and peak memory of one way to a Jacobian, each in a process of its own: nothing before it counts.

``python -m torchjac._cli.measure REQUEST WAY`` is that process; it prints its result as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from math import prod
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch import pytree
from . import number_format
from .memory import Peak, available
from .peers import BLOCKS, WAYS
from .request import FunctionCall, Request

#: The most calls, and their seconds, after the one whose memory is measured.
CALLS = 9
SECONDS = 1.0

#: The arrays of the answer's size that a dense way holds (the basis, rows of cotangents, the answer), about.
DENSE_ARRAYS = 4


class Measurement(NamedTuple):
    """The measurements of one peer; ``failed`` says why there are no numbers."""

    way: str
    seconds: float | None = None
    peak: int | None = None
    failed: str = ""


def dense_bytes(problem: FunctionCall, value: Any) -> int:
    """Return what the dense Jacobian takes, all outputs by all inputs."""
    outputs = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    inputs = [leaf for leaf in pytree.tree_leaves(problem.chosen()) if isinstance(leaf, Tensor)]
    return sum(prod(out.shape) * prod(arg.shape) * arg.element_size() for out in outputs for arg in inputs)


def does_not_fit(way: str, size: int) -> str:
    """Return why a way is not tried, empty where it can be."""
    room = available()
    if way == BLOCKS or room is None or DENSE_ARRAYS * size <= room:
        return ""
    return f"does not fit: the dense tensor takes {number_format.size(size)}"


def in_fresh_process(request: Request, way: str, limit: float) -> Measurement:
    """Return the cost of a way, measured by a process that does nothing else and may take ``limit`` seconds."""
    if not limit:
        return Measurement(way, failed="not measured, as the time is up (--limit)")
    command = [sys.executable, "-m", "torchjac._cli.measure", request.to_json(), way]
    # It must find the very modules that this process does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return Measurement(way, failed=f"took more than {limit:.3g} s")
    if run.returncode < 0:
        return Measurement(way, failed="was killed by the system, most likely for its memory")
    if run.returncode != 0:
        return Measurement(way, failed=(run.stderr.strip().splitlines() or ["failed"])[-1])
    return Measurement(way, *json.loads(run.stdout.splitlines()[-1]))


def measure(problem: FunctionCall, way: str) -> tuple[float, int | None]:
    """Median seconds of a call, and the peak of the first."""
    # What PyTorch loads at a first call of anything is no cost of this function.
    WAYS[way](lambda x: (x @ x.t()).sin())(torch.eye(2, device="cpu"))
    problem.value()
    transform = WAYS[way](problem.function, problem.argnums)
    device = next(leaf.device for leaf in pytree.tree_leaves(problem.arguments) if isinstance(leaf, Tensor))
    peak = Peak(device)
    times = [timed(transform, problem)]
    most = peak.bytes()
    times = times if times[0] > SECONDS else []
    while sum(times) < SECONDS and len(times) < CALLS:
        times.append(timed(transform, problem))
    return median(times), most


def timed(transform: Callable[..., Any], problem: FunctionCall) -> float:
    """Seconds of one call, until its answer is there."""
    start = perf_counter()
    transform(*problem.arguments)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(measure(Request.from_json(sys.argv[1]).load(), sys.argv[2])))
