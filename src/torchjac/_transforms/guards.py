"""The values that code of a capture can read beside its arguments, as they were; and whether they still are.

A captured program holds what was found when it was captured. From the function and from the globals of all code that
ran (`capture_watch.py` tells which) everything is reached that the names in that code can lead to. What was found is
kept with the place where it stood, and looked at again before every run: identity for tensors and objects, equality for
numbers and strings. An object of which nothing can be seen is refused.
"""

from __future__ import annotations

import builtins
import functools
import os
import weakref
from _thread import _local
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import partial
from operator import attrgetter, methodcaller
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, ClassVar

import numpy
import torch
from torch.nn.modules import module as _module

from .._torch import FakeTensor
from .guarded_value import GuardedValue
from .signature import kind_of
from .snapshot import MISSING, Space, cache_state
from .trusted_code import PLAIN, QUIET, STATEFUL, is_library, is_unknown, is_unread, refusal

#: Dicts of a module that PyTorch reads at each call.
_OF_MODULES = [name for name in vars(torch.nn.Module()) if name not in ("_non_persistent_buffers_set",)]

_GLOBAL_HOOKS = [
    value for name, value in vars(_module).items() if name.startswith("_global_") and name.endswith("hooks")
]


class Guards(GuardedValue):
    """The values found outside by the code that ran, from some roots."""

    #: What is reached in place of an object of a class, by the class.
    instead: ClassVar[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
        staticmethod: lambda found: (found.__func__,),
        classmethod: lambda found: (found.__func__,),
        property: lambda found: (found.fget, found.fset, found.fdel),
        MethodType: lambda found: (found.__self__, found.__func__),
        partial: lambda found: (found.func, found.args, found.keywords, vars(found)),
    }

    def __init__(self, *roots: Any) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.everything = False
        self.codes: list[CodeType] = []  # of the functions reached
        self._seen: dict[int, Any] = {}  # keeps what it names alive, so that an id stands for one object
        # What has attributes, read again when there are more names.
        self._owners: list[tuple[Any, Space | None]] = []
        # What a tracer replaces while it traces is read now.
        self.reach(
            [torch.nn.Module, torch.Tensor, *(_GLOBAL_HOOKS if self._ask(any, _GLOBAL_HOOKS) else ()), *roots]
        )

    # What ran

    def ran(
        self, names: set[str], scope: dict[str, Any], looked_up: Iterable[str], modules: Iterable[Any]
    ) -> None:
        """Note code that runs: the names in it, its globals with those that it looks up, and what it imports."""
        found = [*self._space(scope, False).read(looked_up), *self._more_names(names)]
        missing = [name for name in looked_up if name not in scope]
        found += self._space(vars(builtins), False).read(missing)
        for name in missing:
            self._ask(scope.get, name, MISSING)
        self.reach([*found, *modules])

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

    def _more_names(self, names: set[str]) -> Iterator[Any]:
        new = names - self.names
        self.names |= new
        for owner, space in list(self._owners) if new else ():
            yield from self._attributes(owner, space, new)

    def reach(self, found: Iterable[Any]) -> None:
        """Keep the attributes of objects, and theirs."""
        stack = list(found)
        while stack:
            each = stack.pop()
            if id(each) not in self._seen:
                self._seen[id(each)] = each
                stack.extend(self._read(each))

    # The attributes of an object

    def _read(self, found: Any) -> Iterator[Any]:
        kind = type(found)
        if isinstance(found, PLAIN) and is_library(kind.__module__):
            return
        parts = next(filter(None, map(self.instead.get, kind.__mro__)), None)
        if parts is not None:
            yield from parts(found)
        elif isinstance(found, torch.Tensor):
            self._tensors.append((found, kind_of(found)))
            yield from self._own(found, None)
            if not is_library(kind.__module__):
                yield kind
        elif isinstance(found, ModuleType):
            yield from self._own(found, self._space(found.__dict__, not is_library(found.__name__)))
        elif isinstance(found, type):
            yield from self._read_class(found)
        elif found is os.getenv:
            yield os.environ
        elif isinstance(found, FunctionType):
            yield from self._read_function(found)
        elif kind is functools._lru_cache_wrapper:
            yield from self._read_cache(found)
        elif isinstance(found, BuiltinFunctionType) or kind.__name__ == "cython_function_or_method":
            if not isinstance(getattr(found, "__self__", None), (ModuleType, type(None))):
                yield found.__self__
        elif isinstance(found, STATEFUL):
            raise refusal(found, "whose next answer is another each time")
        elif isinstance(found, (attrgetter, methodcaller)):
            yield from self._more_names(
                {part for name in _texts(found.__reduce__()) for part in name.split(".")}
            )
        elif (
            kind is object or isinstance(found, QUIET) or (is_unread(kind) and not isinstance(found, _local))
        ):
            return
        else:
            yield from self._read_content(found)
            yield from self._read_instance(found)

    def _read_content(self, found: Any) -> Iterator[Any]:
        """Yield the entries of a container, an array, a reference."""
        if isinstance(found, (list, tuple, deque, set, frozenset)):
            entries = tuple(found)
            if not isinstance(found, (tuple, frozenset)):
                self._sequences.append((found, entries))
            if not set(map(type, entries)) <= _NUMBERS:
                yield from entries
        elif isinstance(found, (dict, MappingProxyType)):
            yield from self._space(found, True).read(found)
            yield from [key for key in found if type(key) is not str]
        elif isinstance(found, numpy.ndarray):
            if found.dtype.hasobject:
                yield from found.flat
            self._tables.append((found, found.copy()))
        elif isinstance(found, (bytearray, array)):
            self._ask(bytes, found)
        elif isinstance(found, (weakref.ref, ContextVar)):
            yield self._ask(found) if isinstance(found, weakref.ref) else self._ask(found.get, MISSING)

    def _read_instance(self, found: Any) -> Iterator[Any]:
        kind = type(found)
        if _is_refused(found):
            raise refusal(found, "in which nothing can be seen of what may change")
        if not is_library(kind.__module__) or isinstance(found, torch.nn.Module):
            self._ask(getattr, found, "__class__")
            yield kind
        if isinstance(found, _local):
            yield from self._own(found, None)
        elif hasattr(found, "__dict__"):
            yield from self._own(found, self._space(found.__dict__, True))
        elif not isinstance(found, _CONTAINERS):
            yield from self._own(found, None)

    def _read_class(self, found: type) -> Iterator[Any]:
        for base in found.__mro__:
            if not is_library(base.__module__):
                space = self._space(base.__dict__, True, base)
                dunders = [
                    name for name, value in base.__dict__.items() if name[:2] == "__" and callable(value)
                ]
                self._ask(getattr, base, "__bases__")
                yield from space.read(dunders)
                yield from self._own(base, space)
            elif base is torch.Tensor:
                yield from self._own(base, self._space(base.__dict__, False, base))
            elif issubclass(base, torch.nn.Module):
                methods = [name for name, value in base.__dict__.items() if isinstance(value, FunctionType)]
                called = ("__call__", "_call_impl", "__getattr__") if base is torch.nn.Module else methods
                yield from self._space(base.__dict__, False, base).read(called)

    def _read_function(self, found: FunctionType) -> Iterator[Any]:
        compiled = found.__dict__.get("_torchdynamo_orig_callable")  # private: what `torch.compile` was given
        if compiled is not None:
            yield compiled
            return
        library = is_library(found.__globals__.get("__name__"))  # `__module__` may be that of what is wrapped
        for cell in found.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            if not library:
                self._cells.append((cell, value))
            yield value
        if not library:
            self.codes.append(found.__code__)
            self._functions.append((found, found.__code__, found.__defaults__, found.__kwdefaults__))
            yield from (found.__defaults__, found.__kwdefaults__)
            yield from self._own(found, self._space(found.__dict__, True))

    def _read_cache(self, found: Any) -> Iterator[Any]:
        """Yield a function with a cache gives what it gave once, whatever it would read today."""
        self._ask(cache_state, found)
        yield found.__wrapped__

    def _own(self, owner: Any, space: Space | None) -> Iterator[Any]:
        self._owners.append((owner, space))
        yield from self._attributes(owner, space, self.names)

    def _attributes(self, owner: Any, space: Space | None, names: set[str]) -> Iterator[Any]:
        """Yield what stands at names of an object: in its dict, in its slots, in what C keeps of it."""
        if isinstance(owner, torch.Tensor):
            if owner.is_leaf:
                for name in _OF_TENSORS & names:
                    yield self._ask(getattr, owner, name)
            if "data" in names and owner.layout is torch.strided and not isinstance(owner, FakeTensor):
                self._ask(owner.data_ptr)
        elif isinstance(owner, _local):
            for name in names:
                yield self._ask(getattr, owner, name, MISSING)
        else:
            if space is not None:
                yield from self._names_in(owner, space, names)
            if not isinstance(owner, (type, ModuleType, FunctionType)):
                for base in type(owner).__mro__:
                    for name, value in base.__dict__.items():
                        if isinstance(value, MemberDescriptorType) and name in names:
                            yield self._ask(getattr, owner, name, MISSING)

    def _names_in(self, owner: Any, space: Space, names: set[str]) -> Iterator[Any]:
        """Yield what stands at names in the dict of an object; what is not named may be told by its identity."""
        named: Iterable[Any] = names & space.space.keys()
        others: list[Any] = []
        is_scope = isinstance(owner, (type, ModuleType))
        if isinstance(owner, torch.nn.Module):
            public = [name for name in space.space if name in _OF_MODULES or not name.startswith("_")]
            named = [*public, *named]
        elif not is_scope and any(map(_keeps, type(owner).__mro__)):
            named = list(space.space)
        elif self.everything and (space.order is not None or not is_scope):
            others = list(space.space)
        yield from space.read(named)
        yield from [each for each in space.read(others) if not _is_refused(each)]


_NUMBERS = {int, float, bool, str, complex, type(None), bytes}
_CONTAINERS = (
    list, tuple, dict, deque, set, frozenset, MappingProxyType, numpy.ndarray, bytearray, array, weakref.ref,
    ContextVar, SimpleNamespace, _local,
)  # fmt: skip
_OF_TENSORS = {"grad", "_backward_hooks"}


def _keeps(base: type) -> bool:
    """Return whether a class is a library's, whose methods read more than the code that is watched names."""
    return base is not object and is_library(base.__module__) and base.__module__ not in ("abc", "typing")


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, tuple):
        for each in tree:
            yield from _texts(each)


def _is_refused(found: Any) -> bool:
    return isinstance(found, STATEFUL) or (not isinstance(found, _CONTAINERS) and is_unknown(type(found)))
