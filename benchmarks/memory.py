"""Memory: the peak of the process above what it held before the call, less the answer."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .problem import leaves

STATUS = Path("/proc/self/status")


def field(name: str) -> int:
    """A line of the process's status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def beyond_answer(call: Callable[[], Any]) -> tuple[int, int] | None:
    """Peak resident memory of a call beyond its answer, and the answer, in bytes; None off Linux.

    Pages of zeros that are never written take no memory, and are not counted as the answer either: what is left
    of the answer is what the process holds after the call.
    """
    if not STATUS.exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = field("VmRSS")
    answer = call()
    peak = field("VmHWM")
    size = sum(leaf.nbytes for leaf in leaves(answer))
    return max(0, peak - before - min(size, max(0, field("VmRSS") - before))), size


def limit_memory(gigabytes: float) -> None:
    """Make an allocation beyond this fail, rather than the machine."""
    size = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
