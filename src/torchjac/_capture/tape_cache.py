"""A cache for tapes of one make: algebra of shapes, nothing of the functions that left them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

#: So many nodes may the tapes have of which something is remembered; then all is forgotten. A node takes a kilobyte.
MOST_NODES = 1 << 16


class Memo(Generic[T]):
    """Values by their keys, each of a tape with a number of nodes."""

    def __init__(self) -> None:
        self.kept: dict[Hashable, T] = {}
        self.nodes = 0

    def get(self, key: Hashable, otherwise: U) -> T | U:
        """Return what is remembered under a key."""
        return self.kept.get(key, otherwise)

    def put(self, key: Hashable, value: T, nodes: int) -> T:
        """Remember a value."""
        if key not in self.kept:
            self.nodes += nodes
            if self.nodes > MOST_NODES:
                self.kept.clear()
                self.nodes = nodes
        self.kept[key] = value
        return value
