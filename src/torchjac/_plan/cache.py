"""The cache of programs: bounded by bytes, and one for all threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """The entry kept under a key.

    Attributes:
        program: the program, None where there can be none.
        failures: how often in a row its guards have not held.
        bytes: what the entry takes.
        calls: how often the key was seen before this program.
        left: the candidates that are still to be recorded, each with the call after which it is; None before it is
            known which these are.
        best: the candidate that takes least of those that were recorded, or of a first call.
        price: what that takes, None before anything was recorded.
    """

    program: Any
    failures: int
    bytes: int
    calls: int = 0
    left: tuple[tuple[Any, float], ...] | None = None
    best: Any = None
    price: float | None = None

    @property
    def runs(self) -> int:
        """The number of calls that the key was seen at."""
        return self.calls + (0 if self.program is None else self.program.runs)


class Cache:
    """Entries by their keys; the one that was used least recently goes first.

    It takes no lock, which an interrupt at the end of a `with` would leave taken: each change is one call of a
    dictionary. Threads that meet at a key record a program twice at worst.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.latest: Entry | None = None
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()

    @property
    def bytes(self) -> int:
        """The bytes of all entries."""
        return sum([entry.bytes for entry in self._all()])

    @property
    def programs(self) -> int:
        """The number of entries that hold a program."""
        return sum([entry.program is not None for entry in self._all()])

    def _all(self) -> list[Entry]:
        return list(dict.values(self.entries))  # an ordered one's own iterator would hash every key again

    def get(self, key: Hashable) -> Entry | None:
        """Return the entry under a key."""
        entry = self.entries.get(key)
        if entry is not None and entry is not self.latest:
            self._touch(key)
            self.latest = entry
        return entry

    def put(self, key: Hashable, entry: Entry) -> None:
        """Keep an entry."""
        self.entries[key] = self.latest = entry
        self._touch(key)
        self._shrink()

    def bound(self, most: int) -> None:
        """Let entries take this number of bytes from now on."""
        self.most = most
        self._shrink()

    def clear(self) -> None:
        """Forget everything."""
        self.latest = None
        self.entries.clear()

    def _touch(self, key: Hashable) -> None:
        with suppress(KeyError):  # another thread has dropped it
            self.entries.move_to_end(key)

    def _shrink(self) -> None:
        held = self.bytes
        while held > self.most and self.entries:
            with suppress(KeyError):
                held -= self.entries.popitem(last=False)[1].bytes
