"""Attributes of the objects that a capture reaches: those that code names, and those that libraries read."""

from __future__ import annotations

import weakref
from _thread import _local
from abc import abstractmethod
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from enum import EnumMeta
from types import (
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy
import torch
from torch.backends import PropModule

from .._torch import FakeTensor
from .guarded_value import GuardedValue
from .snapshot import MISSING, Space, same
from .trusted_code import STATEFUL, is_library, is_unknown, is_unread

#: Dicts of a module that PyTorch reads at each call.
_OF_MODULES = [name for name in vars(torch.nn.Module()) if name not in ("_non_persistent_buffers_set",)]

#: What keeps entries that are looked at as such.
CONTAINERS = (
    list, tuple, dict, deque, set, frozenset, MappingProxyType, numpy.ndarray, bytearray, array, memoryview,
    weakref.ref, ContextVar, SimpleNamespace, _local,
)  # fmt: skip

_OF_TENSORS = {"grad", "_backward_hooks"}


class GuardedAttributes(GuardedValue):
    """The attributes found, by the names in the code that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        #: Names that are asked for where there may be none, by `hasattr` or `getattr`.
        self._perhaps: set[str] = set()
        self.everything = False
        # What has attributes, read again when there are more names.
        self._owners: list[tuple[Any, Space | None]] = []

    @abstractmethod
    def reach(self, found: Iterable[Any]) -> None:
        """Keep the attributes of objects, and theirs."""

    def ran_with_any_name(self) -> None:
        """Note that code runs which makes the names that it looks up: all attributes are read."""
        if not self.everything:
            self.everything = True
            self.reach(
                [
                    each
                    for owner, space in list(self._owners)
                    for each in self._attributes(owner, space, set())
                ]
            )

    def _more_names(self, names: set[str], perhaps: Iterable[str] = ()) -> Iterator[Any]:
        """Yield what stands at more names; there may ``perhaps`` be nothing yet where code asks for some."""
        new = names - self.names | set(perhaps) - self._perhaps
        self.names |= names
        self._perhaps |= set(perhaps)
        for owner, space in list(self._owners) if new else ():
            yield from self._attributes(owner, space, new)

    def _own(self, owner: Any, space: Space | None) -> Iterator[Any]:
        self._owners.append((owner, space))
        yield from self._attributes(owner, space, self.names)

    def _attributes(self, owner: Any, space: Space | None, names: set[str]) -> Iterator[Any]:
        """Yield what stands at names of an object: in its dict, in its slots, in what C keeps of it."""
        if isinstance(owner, torch.Tensor):
            if owner.is_leaf:
                for name in _OF_TENSORS & names:
                    yield self._ask(getattr, owner, name)
            if "_version" in names and not owner.is_inference():
                self._ask(getattr, owner, "_version")
            yield from self._perhaps_at(owner, names - vars(owner).keys())
            if "data" in names and owner.layout is torch.strided and not isinstance(owner, FakeTensor):
                self._ask(owner.data_ptr)
        elif isinstance(owner, _local):
            for name in names:
                yield self._ask(getattr, owner, name, MISSING)
        else:
            if isinstance(owner, ModuleType) and is_library(owner.__name__):
                absent = names - vars(owner).keys()
                yield from self._perhaps_at(owner, absent)
                for name in absent if isinstance(owner, PropModule) else ():
                    yield self._ask(getattr, owner, name, MISSING)
            yield from self._of_c(owner, names)
        if space is not None:
            yield from self._names_in(owner, space, names)

    def _perhaps_at(self, owner: Any, absent: set[str]) -> Iterator[Any]:
        """Yield what is found at names for which there is no guard where there is nothing."""
        for name in absent & self._perhaps:
            yield self._ask(getattr, owner, name, MISSING)

    def _of_c(self, owner: Any, names: set[str]) -> Iterator[Any]:
        """Yield what C keeps of an object under names, and all that a library's code may look at."""
        is_scope = isinstance(owner, (type, ModuleType, FunctionType))
        for base in type(owner).__mro__:
            reads_all = not is_scope and _keeps(base) and not is_unread(base)
            for name, value in base.__dict__.items():
                if isinstance(value, MemberDescriptorType):
                    if name in names or (reads_all and not name.startswith("__")):
                        yield self._ask(getattr, owner, name, MISSING)
                elif isinstance(value, GetSetDescriptorType) and name in names and name != "__dict__":
                    made = getattr(owner, name, MISSING)
                    if same(made, getattr(owner, name, MISSING)):  # it is not made at each look
                        self._ask(getattr, owner, name, MISSING)
                    yield made

    def _names_in(self, owner: Any, space: Space, names: set[str]) -> Iterator[Any]:
        """Yield what stands at names in the dict of an object; what is not named may be told by its identity."""
        named: Iterable[Any] = names & space.space.keys()
        others: list[Any] = []
        is_scope = isinstance(owner, (type, ModuleType))
        if is_unread(type(owner)):
            pass
        elif isinstance(owner, torch.nn.Module):
            public = [name for name in space.space if name in _OF_MODULES or not name.startswith("_")]
            named = [*public, *named]
        elif isinstance(owner, EnumMeta) or (not is_scope and any(map(_keeps, type(owner).__mro__))):
            named = list(space.space)
        elif self.everything and (space.order is not None or not is_scope):
            others = list(space.space)
        yield from space.read(named)
        yield from [each for each in space.read(others) if not is_refused(each)]


def _keeps(base: type) -> bool:
    """Return whether a class is a library's, whose methods read more than the code that is watched names."""
    return base is not object and is_library(base.__module__) and base.__module__ not in ("abc", "typing")


def is_refused(found: Any) -> bool:
    """Return whether nothing can be seen of what may change in an object."""
    return isinstance(found, STATEFUL) or (not isinstance(found, CONTAINERS) and is_unknown(type(found)))
