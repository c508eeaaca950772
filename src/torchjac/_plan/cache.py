"""The cache of programs: bounded by bytes, and one for all threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """What is kept under a key.

    Attributes:
        program: the program, None where there can be none.
        failures: how often in a row its guards have not held.
        bytes: what the entry takes.
        weighed: how many of the ways to compute the result were tried; 0 where the key was only seen.
    """

    program: Any
    failures: int
    bytes: int
    weighed: int = 1


class Cache:
    """Entries by their keys; the one that was used least recently goes first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Hashable) -> Entry | None:
        """Return the entry under a key."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is not None:
                self.entries.move_to_end(key)
            return entry

    def put(self, key: Hashable, entry: Entry) -> None:
        """Keep an entry."""
        with self.lock:
            old = self.entries.pop(key, None)
            self.entries[key] = entry
            self.bytes += entry.bytes - (0 if old is None else old.bytes)
            self._shrink()

    def bound(self, most: int) -> None:
        """Let entries take so many bytes from now on."""
        with self.lock:
            self.most = most
            self._shrink()

    def held(self) -> tuple[int, int]:
        """Return how many programs there are, and the bytes that all entries take."""
        with self.lock:
            return sum(entry.program is not None for entry in self.entries.values()), self.bytes

    def _shrink(self) -> None:
        while self.bytes > self.most and self.entries:
            self.bytes -= self.entries.popitem(last=False)[1].bytes

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self.entries.clear()
            self.bytes = 0
