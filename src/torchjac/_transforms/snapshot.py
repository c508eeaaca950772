"""The state found at a place, kept to be compared with that later, and put back."""

from __future__ import annotations

import datetime
import decimal
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from operator import itemgetter
from types import CellType
from typing import Any, NamedTuple

import numpy

from .._torch import DYNAMO_MARK
from .trusted_code import PLAIN

#: Stands for what is not there.
MISSING = object()


class Space:
    """Names in a dict (or a class's), with what stood there; ``order`` are all its keys, where others would count."""

    def __init__(self, space: Any, order: bool, owner: Any) -> None:
        self.space, self.owner = space, owner
        self.order = list(space) if order else None
        self.held: dict[Any, Any] = {}

    def read(self, names: Iterable[Any]) -> Iterator[Any]:
        """Keep what stands at names; gives the new ones."""
        for name in names:
            if name not in self.held and name in self.space:
                self.held[name] = self.space[name]
                yield self.held[name]

    def look(self) -> tuple[Any, ...]:
        """Return what `Guards.hold` looks at, and what puts it back."""
        names = list(self.held)
        pick = itemgetter(*names) if len(names) > 1 else itemgetter(*names * 2) if names else _nothing
        held = tuple(self.held.values()) * (2 if len(names) == 1 else 1)
        return self.space, self.order, pick, held, self.refill

    def refill(self) -> None:
        """Put back what stood there."""
        if isinstance(self.owner, type):
            for name, value in self.held.items():
                if self.space.get(name, MISSING) is not value:
                    setattr(self.owner, name, value)
        elif isinstance(self.space, dict):
            for key, value in self.held.items():
                if dict.get(self.space, key, MISSING) is not value:
                    dict.__setitem__(self.space, key, value)
            for key in [key for key in self.space if key not in self.order] if self.order is not None else ():
                dict.__delitem__(self.space, key)


def _nothing(_: Any) -> tuple[()]:
    return ()


class Lookup(NamedTuple):
    """A question that is asked again, with its answer."""

    ask: Callable[..., Any]
    given: tuple[Any, ...]
    answer: Any


def same(found: Any, value: Any) -> bool:
    """Return whether two objects are one, or values that a function cannot tell apart."""
    if found is value:
        return True
    if type(found) is not type(value):
        return False
    if isinstance(value, tuple):
        return len(found) == len(value) and all(map(same, found, value))
    return isinstance(value, PLAIN) and bool(exact(found) == exact(value))


def exact(value: Any) -> Any:
    """Return what is equal only for values that a function cannot tell apart.

    0.0 and -0.0 are equal, NaN is not, and so are ranges with other ends, decimals with other digits, times in other
    zones.
    """
    if isinstance(value, numpy.generic):
        return str(value.dtype), value.tobytes()
    return repr(value) if isinstance(value, _EQUAL_TO_OTHERS) else value


_EQUAL_TO_OTHERS = float, complex, range, decimal.Decimal, datetime.date, datetime.time


def exact_keys(table: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return the keys of a dict that are values, with their types: 1 and 1.0 are one key."""
    return tuple([(type(key), exact(key)) for key in table if isinstance(key, PLAIN)])


def attribute_count(kind: type) -> int:
    """Return what tells that a class was given an attribute, which may hide that of another beneath."""
    names = kind.__dict__
    return len(names) - (DYNAMO_MARK in names)


def cache_state(wrapper: Any) -> tuple[int, int]:
    """Return what tells that a cache was filled or emptied."""
    state = wrapper.cache_info()
    return state.misses, state.currsize


def variable_value(variable: ContextVar[Any]) -> Any:
    """Return what a context variable has here, which is its default where it was not set."""
    try:
        return variable.get()
    except LookupError:
        return MISSING


def leave() -> None:
    """Put nothing back."""


def refill_sequence(sequence: Any, held: tuple[Any, ...]) -> None:
    if type(sequence) in (list, deque, set):
        sequence.clear()
        (sequence.update if isinstance(sequence, set) else sequence.extend)(held)


def refill_cell(cell: CellType, held: Any) -> None:
    if held is not MISSING:
        cell.cell_contents = held
    else:
        del cell.cell_contents


def form_of(table: numpy.ndarray[Any, Any]) -> Hashable:
    """Return how an array lies in memory."""
    return table.shape, table.dtype, table.dtype.names, table.strides, table.flags.num


def refill_table(table: numpy.ndarray[Any, Any], held: numpy.ndarray[Any, Any]) -> None:
    if table.flags.writeable and (table.shape, table.dtype) == (held.shape, held.dtype):
        numpy.copyto(table, held)
