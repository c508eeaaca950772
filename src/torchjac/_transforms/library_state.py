"""State of libraries that answers depend on, and the questions that tell it.

A question is asked when a capture ends, and again before every run: within the function the state may be another for a
while, as in ``with numpy.errstate(...)``.
"""

from __future__ import annotations

import decimal
import locale
import re
import time
import warnings
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any

import numpy
import torch

from .._torch import PRINT_OPTS
from .trusted_code import PLAIN

#: What tells the state, by the module whose code runs, or whose objects are reached.
STATES: dict[str, Callable[[], Any]] = {
    "_warnings": lambda: tuple(warnings.filters),
    "datetime": lambda: time.tzname,
    "decimal": lambda: repr(decimal.getcontext()),
    "locale": lambda: repr((locale.localeconv(), locale.setlocale(locale.LC_ALL))),
    "numpy._core._ufunc_config": lambda: repr(numpy.geterr()),
    "numpy._core.arrayprint": lambda: repr(numpy.get_printoptions()),
    "torch._tensor_str": lambda: repr(PRINT_OPTS),
}

#: Functions of libraries that tell a state, by their modules: they are asked again with the same arguments.
_GETTERS = {
    "logging": {"getLogger", "isEnabledFor", "getEffectiveLevel", "hasHandlers", "getLevelName"},
    "threading": {
        "current_thread", "active_count", "enumerate", "is_set", "is_alive", "n_waiting", "parties", "broken", "name",
        "getName", "ident", "native_id", "daemon",
    },
    "torch": {"is_warn_always_enabled"},
}  # fmt: skip


def is_getter(module: str, name: str) -> bool:
    """Return whether a function of a library tells a state."""
    return name in _GETTERS.get(module, ())


class CallAgain:
    """A call that has just begun, to be made again; it gives the answer as a value."""

    def __init__(self, frame: FrameType) -> None:
        """Keep the function and its arguments."""
        self._function = FunctionType(frame.f_code, frame.f_globals)
        found = frame.f_locals
        self._given = [found[name] for name in frame.f_code.co_varnames[: frame.f_code.co_argcount]]

    def __call__(self) -> Any:
        """Return the answer of today."""
        told = self._function(*self._given)
        return told if isinstance(told, PLAIN) else repr(told)

    def __hash__(self) -> int:
        """Return the same for the same call."""
        return hash((self._function.__code__, *map(id, self._given)))

    def __eq__(self, other: object) -> bool:
        """Return whether a call is the same."""
        return isinstance(other, CallAgain) and hash(self) == hash(other)


def content(found: Any) -> bytes | None:
    """Return the bytes in an object that shows its memory, None where it shows none (any more)."""
    try:
        return bytes(memoryview(found))
    except (TypeError, ValueError, BufferError):
        return None


def script_attributes(module: torch.jit.ScriptModule) -> Iterator[tuple[Any, str]]:
    """Yield the owners and names of a compiled module's attributes, and of its parts', that are no tensors."""
    names = dict.fromkeys(re.findall(r"(\w+) = ", module._c.dump_to_str(False, True, False)))
    for owner in [each._c for each in module.modules() if isinstance(each, torch.jit.ScriptModule)]:
        for name in names:
            held = owner.getattr(name) if owner.hasattr(name) else None
            if not isinstance(held, (torch.Tensor, torch.ScriptModule, type(None))):
                yield owner, name


def script_attribute(owner: Any, name: str) -> str:
    """Return the value of an attribute of a compiled module."""
    return repr(owner.getattr(name))
