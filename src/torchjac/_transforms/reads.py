"""What a function reads beside its arguments: closures, globals, attributes, parameters; and whether it still does.

A captured program holds what stood there when it was captured. Each read is kept with what was found, and looked
at again before every run: identity for tensors and objects, equality for numbers and strings.
"""

from __future__ import annotations

import dis
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy
import torch

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
#: Code of these packages does not change between calls; what it is given is looked at.
_LIBRARIES = {"torch", "torchjac", "numpy", "functools", *sys.stdlib_module_names}
_MISSING = object()
#: Containers with more entries than this are taken to be data, and only told by their identity.
MOST = 1000


class Reads:
    """The reads that could be found by walking from a function through what it refers to."""

    def __init__(self, *roots: Any) -> None:
        self.cells: list[tuple[CellType, Any]] = []
        self.items: list[tuple[dict[Any, Any], Any, Any]] = []
        self.lists: list[tuple[Any, tuple[Any, ...]]] = []
        self.dicts: list[tuple[dict[Any, Any], frozenset[Any]]] = []
        self.attributes: list[tuple[Any, str, Any]] = []
        self.arrays: list[tuple[numpy.ndarray[Any, Any], bytes]] = []
        self._seen: dict[int, Any] = {}  # keeps what it names alive, so that an id stands for one object
        stack = list(roots)
        while stack:
            found = stack.pop()
            if id(found) not in self._seen and not isinstance(found, (*_PLAIN, torch.Tensor, ModuleType)):
                self._seen[id(found)] = found
                stack.extend(self._walk(found))

    def hold(self) -> bool:
        """Whether everything read is what it was."""
        for cell, value in self.cells:
            try:
                found = cell.cell_contents
            except ValueError:
                found = _MISSING
            if found is not value and not _same(found, value):
                return False
        for items, key, value in self.items:
            found = items.get(key, _MISSING)
            if found is not value and not _same(found, value):
                return False
        for sequence, held in self.lists:
            if len(sequence) != len(held) or not all(map(_same, sequence, held)):
                return False
        for items, keys in self.dicts:
            if len(items) != len(keys):
                return False
        for owner, name, value in self.attributes:
            found = getattr(owner, name, _MISSING)
            if found is not value and not _same(found, value):
                return False
        return all(array.tobytes() == held for array, held in self.arrays)

    def restore(self) -> None:
        """Put back what was read."""
        for cell, value in self.cells:
            if value is not _MISSING:
                cell.cell_contents = value
        for items, key, value in self.items:
            if value is not _MISSING:
                items[key] = value
        for sequence, held in self.lists:
            sequence.clear()
            (sequence.update if isinstance(sequence, set) else sequence.extend)(held)
        for items, keys in self.dicts:
            for key in [key for key in items if key not in keys]:
                del items[key]
        for owner, name, value in self.attributes:
            if getattr(owner, name, _MISSING) is not value:
                setattr(owner, name, value)

    def _walk(self, found: Any) -> Iterator[Any]:
        if isinstance(found, FunctionType):
            yield from self._walk_function(found)
        elif isinstance(found, MethodType):
            yield from (found.__self__, found.__func__)
        elif isinstance(found, partial):
            yield from (found.func, found.args, found.keywords)
        elif isinstance(found, (list, tuple, dict, deque, set)) and len(found) > MOST:
            return
        elif isinstance(found, (list, deque, set)):
            self.lists.append((found, tuple(found)))
            yield from found
        elif isinstance(found, numpy.ndarray):
            if found.size <= MOST and not found.dtype.hasobject:
                self.arrays.append((found, found.tobytes()))
        elif isinstance(found, type):
            yield from self._walk_class(found)
        elif isinstance(found, tuple):
            yield from found
        elif isinstance(found, dict):
            self.dicts.append((found, frozenset(found)))
            yield from self._walk_items(found, list(found))
        elif isinstance(found, torch.nn.Module):
            kept = ("_parameters", "_buffers", "_modules")
            for name in kept:
                yield found.__dict__[name]
            yield from self._walk_items(found.__dict__, [k for k in found.__dict__ if not k.startswith("_")])
            yield from self._walk_class(type(found))
        elif isinstance(found, SimpleNamespace):
            yield from self._walk_items(found.__dict__, list(found.__dict__))
        elif isinstance(found, (BuiltinFunctionType, torch.jit.ScriptFunction)) or _is_library(type(found)):
            return
        else:
            if hasattr(found, "__dict__"):
                yield from self._walk_items(found.__dict__, list(found.__dict__))
            yield from self._walk_slots(found)
            yield from self._walk_class(type(found))

    def _walk_function(self, function: FunctionType) -> Iterator[Any]:
        scope = function.__globals__
        library = _is_library_name(scope.get("__name__"))  # `__module__` may be that of what is wrapped
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            if not library:
                self.cells.append((cell, value))
            yield value
        yield from (function.__defaults__, function.__kwdefaults__)
        if not library:
            yield from self._walk_items(scope, [name for name in _names(function.__code__) if name in scope])

    def _walk_slots(self, found: Any) -> Iterator[Any]:
        for base in type(found).__mro__:
            for name, value in base.__dict__.items():
                if isinstance(value, MemberDescriptorType) and hasattr(found, name):
                    self.attributes.append((found, name, getattr(found, name)))
                    yield getattr(found, name)

    def _walk_class(self, owner: type) -> Iterator[Any]:
        for base in owner.__mro__:
            if not _is_library(base):
                for name, value in base.__dict__.items():
                    if isinstance(value, FunctionType):
                        yield value
                    elif isinstance(value, (*_PLAIN, torch.Tensor)) and not name.startswith("__"):
                        self.attributes.append((base, name, value))

    def _walk_items(self, items: dict[Any, Any], keys: list[Any]) -> Iterator[Any]:
        for key in keys:
            value = items[key]
            if not isinstance(value, ModuleType):
                self.items.append((items, key, value))
                yield value


def _names(code: CodeType) -> Iterator[str]:
    """The globals that code looks up, its inner functions' too."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_library(thing: Any) -> bool:
    return _is_library_name(getattr(thing, "__module__", None))


def _is_library_name(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _LIBRARIES


def _same(found: Any, value: Any) -> bool:
    return found is value or (type(found) is type(value) and isinstance(value, _PLAIN) and found == value)
