"""State of libraries that answers depend on, and the questions that tell it.

A question is asked when a capture ends, and again before every run: within the function the state may be another for a
while, as in ``with numpy.errstate(...)``.
"""

from __future__ import annotations

import decimal
import inspect
import locale
import re
import time
import warnings
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, ModuleType
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
    "torch.amp.autocast_mode": lambda: tuple(map(torch.get_autocast_dtype, ("cpu", "cuda"))),
}

#: Functions of C that tell a state, with its name there.
TOLD_BY_C = dict.fromkeys(
    ("get_autocast_dtype", "get_autocast_cpu_dtype", "get_autocast_gpu_dtype"), "torch.amp.autocast_mode"
)

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


def may_tell(module: str, name: str) -> bool:
    """Return whether a function of PyTorch tells a state by its name; called again, it changes nothing."""
    return module.partition(".")[0] == "torch" and (
        name.startswith(("get", "is_", "has_", "current_", "__get"))
        or name.endswith(("_enabled", "_available"))
    )


#: Of code: it takes any number of arguments, or makes a generator.
_TAKES_MORE = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE


def takes_plain(frame: FrameType) -> bool:
    """Return whether a call that has just begun is given nothing but values, and parts of a library."""
    code = frame.f_code
    if code.co_flags & _TAKES_MORE or code.co_kwonlyargcount or code.co_freevars:
        return False
    found = frame.f_locals
    return all(_is_plain(found[name]) for name in code.co_varnames[: code.co_argcount])


def _is_plain(given: Any) -> bool:
    if isinstance(given, (*PLAIN, ModuleType)):
        return True
    kind = given if isinstance(given, type) else type(given)
    holds_tensors = (torch.Tensor, torch.nn.Module, torch.optim.Optimizer, torch.distributions.Distribution)
    return kind.__module__.startswith("torch.") and not issubclass(kind, holds_tensors)


class CallAgain:
    """A call that has just begun, to be made again; it gives the answer as a value."""

    def __init__(self, frame: FrameType) -> None:
        """Keep the function and its arguments."""
        self._function = FunctionType(frame.f_code, frame.f_globals)
        found = frame.f_locals
        self._given = [found[name] for name in frame.f_code.co_varnames[: frame.f_code.co_argcount]]

    def __call__(self) -> Any:
        """Return the answer of today."""
        try:
            told = self._function(*self._given)
        except Exception as error:
            told = error
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
