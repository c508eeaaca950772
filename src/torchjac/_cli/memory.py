"""The memory of the machine, and the most that was taken meanwhile."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def available() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    found = _status(Path("/proc/meminfo"), "MemAvailable")
    if found is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return found


class Peak:
    """The most memory taken since it was made, above what was taken then; on a GPU its own memory."""

    def __init__(self, device: torch.device) -> None:
        """Begin to watch."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before: int | None = torch.cuda.memory_allocated(device)
            return
        self.watched = _forget_peak()
        self.before = _status(Path("/proc/self/status"), "VmRSS") if self.watched else _most_ever()

    def bytes(self) -> int | None:
        """Return the peak so far; None where the system does not tell."""
        if self.device.type == "cuda":
            most: int | None = torch.cuda.max_memory_allocated(self.device)
        else:
            most = _status(Path("/proc/self/status"), "VmHWM") if self.watched else _most_ever()
        return None if most is None or self.before is None else max(0, most - self.before)


def _forget_peak() -> bool:
    """Set Linux's high-water mark back to what is taken now (proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _most_ever() -> int | None:
    """Return the most this process ever took: right for a peak only if nothing before took more."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(path: Path, name: str) -> int | None:
    """Return a number of kilobytes from a file of /proc, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None
