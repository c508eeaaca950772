"""Objects as parts of keys."""

from __future__ import annotations


class KeyOf:
    """An object as part of a key: equal to itself alone, and kept as long as the key is."""

    __slots__ = ("of",)

    def __init__(self, of: object) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        """Tell whether both stand for one object."""
        return isinstance(other, KeyOf) and self.of is other.of

    def __hash__(self) -> int:
        """Return the object's identity."""
        return id(self.of)
