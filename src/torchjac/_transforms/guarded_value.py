"""Values found outside by a capture, kept with their places, and whether they still stand there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import is_
from types import CellType, CodeType, FunctionType
from typing import Any

import numpy
import torch

from .._torch import SETTINGS
from .signature import kind_of
from .snapshot import (
    MISSING,
    Lookup,
    Space,
    cache_state,
    form_of,
    leave,
    refill_cell,
    refill_sequence,
    refill_table,
    same,
)


class GuardedValue:
    """The values found, by the kind of place."""

    def __init__(self) -> None:
        self._spaces: dict[int, Space] = {}
        self._cells: list[tuple[CellType, Any]] = []
        self._functions: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self._sequences: list[tuple[Any, tuple[Any, ...]]] = []
        self._lookups: dict[Any, Lookup] = {}
        self._tensors: list[tuple[torch.Tensor, Any]] = []
        self._tables: list[tuple[numpy.ndarray[Any, Any], Any, numpy.ndarray[Any, Any]]] = []
        self._states: set[Callable[[], Any]] = set()
        self._looks: list[Any] = []
        self._empty: list[Any] = []
        self._settings = [get() for get in SETTINGS]

    def hold(self) -> bool:
        """Return whether everything read is what it was."""
        return next(self._changed(), None) is None

    def restore(self) -> None:
        """Put back what was changed, where that can be done."""
        for changed in list(self._changed()):
            changed()

    def freeze(self) -> None:
        """Note that all has been read, and ask for the state that libraries are left in."""
        for ask in self._states:
            self._lookups[ask] = Lookup(ask, (), ask())
        spaces = self._spaces.values()
        self._looks = [space.look() for space in spaces if space.held or space.order]
        self._empty = [space.space for space in spaces if space.order == []]

    def _changed(self) -> Iterator[Callable[[], None]]:
        """Yield what differs: for each what puts it back."""
        yield from self._changed_names()
        yield from self._changed_contents()

    def _changed_names(self) -> Iterator[Callable[[], None]]:
        for cell, value in self._cells:
            try:
                found = cell.cell_contents
            except ValueError:
                found = MISSING
            if found is not value and not same(found, value):
                yield partial(refill_cell, cell, value)
        for function, code, defaults, kwdefaults in self._functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not kwdefaults
            ):
                yield leave
        for space in self._empty:
            if space:
                yield self._spaces[id(space)].refill
        for space, order, pick, held, refill in self._looks:
            try:
                if (order is None or list(space) == order) and (
                    all(map(is_, pick(space), held)) or all(map(same, pick(space), held))
                ):
                    continue
            except (KeyError, RuntimeError):  # gone, or written by another thread just now
                pass
            yield refill

    def _changed_contents(self) -> Iterator[Callable[[], None]]:
        for sequence, held in self._sequences:
            if len(sequence) != len(held) or not (
                all(map(is_, sequence, held)) or all(map(same, sequence, held))
            ):
                yield partial(refill_sequence, sequence, held)
        for ask, given, answer in self._lookups.values():
            found = ask(*given)
            if found is not answer and not same(found, answer):
                yield given[0].cache_clear if ask is cache_state else leave
        for tensor, kind in self._tensors:
            if kind_of(tensor) != kind:
                yield leave
        for table, form, copy in self._tables:
            if form_of(table) != form or table.tobytes() != copy.tobytes():
                yield partial(refill_table, table, copy)
        if [get() for get in SETTINGS] != self._settings:
            yield leave

    def _space(self, space: Any, order: bool, owner: Any = None) -> Space:
        key = id(space if owner is None else owner)  # a class makes another view of its dict each time
        if key not in self._spaces:
            self._spaces[key] = Space(space, order, owner)
        return self._spaces[key]

    def _ask(self, ask: Callable[..., Any], *given: Any) -> Any:
        key = (getattr(ask, "__name__", ""), id(getattr(ask, "__self__", None)), *map(_name_or_id, given))
        if key not in self._lookups:
            self._lookups[key] = Lookup(ask, given, ask(*given))
        return self._lookups[key].answer


def _name_or_id(each: Any) -> Any:
    return each if isinstance(each, str) else id(each)
