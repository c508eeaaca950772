"""The values that code of a capture can read beside its arguments, as they were; and whether they still are.

A captured program holds what was found when it was captured. From the function and from the globals of all code that
ran (`capture_watch.py` tells which) everything is reached that the names in that code can lead to. What was found is
kept with the place where it stood, and looked at again before every run: identity for tensors and objects, equality for
numbers and strings. An object of which nothing can be seen is refused.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import os
import sys
import weakref
from _thread import _local
from abc import ABCMeta, get_cache_token
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from operator import attrgetter, methodcaller
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    MappingProxyType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, ClassVar, get_args, get_origin

import numpy
import torch
from torch.nn.modules import module as _module

from .code_facts import looks_up_any_name, texts
from .guarded_attributes import CONTAINERS, GuardedAttributes, is_refused
from .library_state import STATES, content, script_attribute, script_attributes
from .signature import kind_of
from .snapshot import MISSING, attribute_count, cache_state, exact_keys, form_of, variable_value
from .trusted_code import PLAIN, QUIET, STATEFUL, is_library, is_unread, refusal

_GLOBAL_HOOKS = [
    value for name, value in vars(_module).items() if name.startswith("_global_") and name.endswith("hooks")
]


class Guards(GuardedAttributes):
    """The values found outside by the code that ran, from some roots."""

    #: What is reached in place of an object of a class, by the class.
    instead: ClassVar[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
        staticmethod: lambda found: (found.__func__,),
        classmethod: lambda found: (found.__func__,),
        property: lambda found: (found.fget, found.fset, found.fdel),
        MethodType: lambda found: (found.__self__, found.__func__),
        MethodWrapperType: lambda found: (found.__self__,),
        slice: lambda found: (found.start, found.stop, found.step),
        GenericAlias: lambda found: (found.__origin__, found.__args__),
        type({}.keys()): lambda found: (found.mapping,),
        type({}.values()): lambda found: (found.mapping,),
        type({}.items()): lambda found: (found.mapping,),
        # Its generator tells nothing of how far it is; entered twice, it raises, as these are gone.
        contextlib._GeneratorContextManager: lambda found: tuple(
            [getattr(found, name, None) for name in ("func", "args", "kwds")]
        ),
    }

    def __init__(self, *roots: Any) -> None:
        super().__init__()
        self._abstract = False
        self.codes: list[CodeType] = []  # of the functions reached
        self._seen: dict[int, Any] = {}  # keeps what it names alive, so that an id stands for one object
        # What a tracer replaces while it traces is read now.
        self.reach(
            [torch.nn.Module, torch.Tensor, *(_GLOBAL_HOOKS if self._ask(any, _GLOBAL_HOOKS) else ()), *roots]
        )

    # What ran

    def ran(
        self,
        names: set[str],
        perhaps: Iterable[str],
        scope: dict[str, Any],
        looked_up: Iterable[str],
        modules: Iterable[str],
    ) -> None:
        """Note code that runs: the names in it, its globals with those that it looks up, and what it imports."""
        found = [*self._space(scope, False).read(looked_up), *self._more_names(names, perhaps)]
        missing = [name for name in looked_up if name not in scope]
        found += self._space(vars(builtins), False).read(missing)
        for name in missing:
            self._ask(scope.get, name, MISSING)
        self.reach([*found, *[self._ask(sys.modules.get, name) for name in modules]])

    def ran_operators(self, operators: Iterable[str]) -> None:
        """Note operators of code that runs: those of tensors may be replaced."""
        self.reach(self._space(torch.Tensor.__dict__, False, torch.Tensor).read(operators))

    def ran_in_library(self, names: Iterable[str], scope: dict[str, Any], looked_up: Iterable[str]) -> None:
        """Note code of a library that runs: the functions that it finds by name may be replaced."""
        found = [*self._space(scope, False).read(looked_up)]
        for module in [scope[name] for name in looked_up if isinstance(scope.get(name), ModuleType)]:
            found += self._space(vars(module), False).read(names)
        self.reach(found)

    def uses(self, module: str | None) -> None:
        """Note that code or objects of a module are used, whose answers may depend on a state."""
        if module in STATES:
            self.depends_on(STATES[module])

    def depends_on(self, state: Callable[[], Any]) -> None:
        """Ask for a state when the capture has ended."""
        self._states.add(state)

    def freeze(self) -> None:
        """Note that all has been read; classes that others may be registered with are read by being asked for."""
        if self._abstract and not self.names.isdisjoint(("isinstance", "issubclass")):
            self.depends_on(get_cache_token)
        super().freeze()

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
        self.uses(kind.__module__)
        if kind is object or (isinstance(found, PLAIN) and is_library(kind.__module__)):
            return
        if looks_up_any_name(found):
            self.ran_with_any_name()
        parts = next(filter(None, map(self.instead.get, kind.__mro__)), None)
        if parts is not None:
            yield from parts(found)
        elif isinstance(found, torch.Tensor):
            self._tensors.append((found, kind_of(found)))
            yield from self._own(found, self._space(found.__dict__, False))
            if not is_library(kind.__module__):
                yield kind
        elif isinstance(found, ModuleType):
            yield from self._own(found, self._space(found.__dict__, not is_library(found.__name__)))
        elif isinstance(found, type):
            yield from self._read_class(found)
        elif isinstance(found, FunctionType):
            yield from self._read_function(found)
        elif kind is functools._lru_cache_wrapper:
            yield from self._read_cache(found)
        elif isinstance(found, BuiltinFunctionType) or kind.__name__ == "cython_function_or_method":
            if not isinstance(getattr(found, "__self__", None), (ModuleType, type(None))):
                yield found.__self__
        elif isinstance(found, STATEFUL):
            raise refusal(found, "whose next answer is another each time")
        else:
            yield from self._read_object(found)

    def _read_object(self, found: Any) -> Iterator[Any]:
        """Yield the parts of an object that is none of the kinds before."""
        kind = type(found)
        if isinstance(found, (attrgetter, methodcaller)):
            yield from self._more_names(
                {each for name in texts(found.__reduce__()) for each in name.split(".")}
            )
        elif isinstance(found, QUIET):
            return
        elif is_unread(kind) and not isinstance(found, _local):
            yield from (get_origin(found), get_args(found))
            if kind.__module__.partition(".")[0] not in ("torch", "torchjac"):
                yield from self._own(found, self._space(getattr(found, "__dict__", {}), False))
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
            keys = [key for key in found if type(key) is not str]
            if keys:
                self._ask(exact_keys, found)
            yield from keys
        elif isinstance(found, numpy.ndarray):
            if found.dtype.hasobject:
                yield from found.flat
            self._tables.append((found, form_of(found), found.copy()))
        elif isinstance(found, torch.jit.ScriptModule):
            for owner, name in script_attributes(found):
                self._ask(script_attribute, owner, name)
        elif content(found) is not None:
            self._ask(content, found)
        elif isinstance(found, weakref.ref):
            yield self._ask(weakref.ref.__call__, found)
        elif isinstance(found, ContextVar):
            yield self._ask(variable_value, found)
        elif isinstance(found, BaseException):
            yield self._ask(getattr, found, "args")

    def _read_instance(self, found: Any) -> Iterator[Any]:
        kind = type(found)
        if is_refused(found):
            raise refusal(found, "in which nothing can be seen of what may change")
        if not is_library(kind.__module__) or isinstance(found, torch.nn.Module):
            self._ask(getattr, found, "__class__")
            yield kind
        if isinstance(found, _local):
            yield from self._own(found, None)
        elif hasattr(found, "__dict__"):
            yield from self._own(found, self._space(found.__dict__, True))
        elif not isinstance(found, CONTAINERS):
            yield from self._own(found, None)

    def _read_class(self, found: type) -> Iterator[Any]:
        self.uses(found.__module__)
        if isinstance(found, ABCMeta):
            self._abstract = True
        if not is_library(type(found).__module__):
            yield type(found)
        for base in found.__mro__:
            if not is_library(base.__module__):
                space = self._space(base.__dict__, True, base)
                dunders = [
                    name for name, value in base.__dict__.items() if name[:2] == "__" and callable(value)
                ]
                self._ask(getattr, base, "__bases__")
                yield from space.read(dunders)
                yield from self._own(base, space)
            elif not issubclass(base, torch.nn.Module):
                space = self._space(base.__dict__, False, base)
                if issubclass(base, torch.Tensor):  # its methods may be hidden
                    self._ask(attribute_count, base)
                yield from self._own(base, space)
            else:
                self._ask(attribute_count, base)
                methods = [name for name, value in base.__dict__.items() if isinstance(value, FunctionType)]
                called = ("__call__", "_call_impl", "__getattr__") if base is torch.nn.Module else methods
                yield from self._space(base.__dict__, False, base).read(called)

    def _read_function(self, found: FunctionType) -> Iterator[Any]:
        compiled = found.__dict__.get("_torchdynamo_orig_callable")  # private: what `torch.compile` was given
        if compiled is not None:
            yield compiled
            return
        # `__module__` may be that of what is wrapped.
        library = is_library(found.__globals__.get("__name__", ""))
        for cell in found.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                value = MISSING
            if not library:
                self._cells.append((cell, value))
            yield value
        if found is os.getenv:
            yield os.environ
        if not library:
            self.codes.append(found.__code__)
            self._functions.append((found, found.__code__, found.__defaults__, found.__kwdefaults__))
            yield from (found.__defaults__, found.__kwdefaults__)
            yield from self._own(found, self._space(found.__dict__, True))

    def _read_cache(self, found: Any) -> Iterator[Any]:
        """Yield a function with a cache gives what it gave once, whatever it would read today."""
        self._ask(cache_state, found)
        yield found.__wrapped__


_NUMBERS = {int, float, bool, str, complex, type(None), bytes}
