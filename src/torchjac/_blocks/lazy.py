"""Keep what is computed once: an attribute, without the lock of `functools.cached_property`, and notes by name.

Before Python 3.12 all instances share that lock, and an interrupt at the end of its `with` leaves it taken: every other
thread then waits for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazy(Generic[T]):  # used as a decorator
    """The result of a method, kept on the instance; two threads may both compute it."""

    def __init__(self, method: Callable[[Any], T]) -> None:
        self.method = method
        self.name = method.__name__
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> T:
        """Compute the attribute; from now on it is found on the instance."""
        if instance is None:
            return self  # type: ignore[return-value]
        value = instance.__dict__[self.name] = self.method(instance)
        return value


class Notes(dict[Any, Any]):
    """Notes of what was worked out from something, by name, to be used again; two threads may both compute it."""

    def find(self, name: Any, make: Callable[[], T]) -> T:
        """Return what was worked out before, or is now."""
        if name not in self:
            self[name] = make()
        found: T = self[name]
        return found
