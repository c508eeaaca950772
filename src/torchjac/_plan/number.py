"""Numbers that a program knows by their registers: what Python computes of them is computed again at each run."""

from __future__ import annotations

import operator
from collections.abc import Callable
from threading import local
from typing import Any


class _Current(local):
    """The recorder of a thread that is active, if any; `recorder.py` sets it."""

    recorder: Any = None


current = _Current()


class Number(float):
    """A number with a register; it belongs to the recorder that is active."""

    register: int

    __slots__ = ("register",)

    def __hash__(self) -> int:
        """Refuse: nothing that is remembered may depend on it."""
        raise TypeError("a number of a recording is no key")


def _computes(name: str, function: Callable[..., float], turned: bool = False) -> None:
    def compute(self: Number, *others: Any) -> Any:
        if others and not isinstance(others[0], (int, float)):
            return NotImplemented
        found = current.recorder
        numbers = (*others, self) if turned else (self, *others)
        value = function(*map(float.__float__, map(float, numbers)))
        if found is None or found.failed is not None:
            return value
        return found.derived(function, tuple(map(found.place, numbers)), value)

    setattr(Number, name, compute)


def _tests(name: str, function: Callable[..., bool]) -> None:
    def test(self: Number, *others: Any) -> Any:
        if others and not isinstance(others[0], (int, float)):
            return NotImplemented
        found = current.recorder
        outcome = function(float.__float__(self), *map(float.__float__, map(float, others)))
        if found is not None:
            found.tested(function, (self, *others), outcome)
        return outcome

    setattr(Number, name, test)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _computes(f"__{_name}__", getattr(operator, _name))
    _computes(f"__r{_name}__", getattr(operator, _name), turned=True)
_computes("__neg__", operator.neg)
_computes("__abs__", operator.abs)
for _name in ("lt", "le", "eq", "ne", "gt", "ge"):
    _tests(f"__{_name}__", getattr(operator, _name))
_tests("__bool__", bool)
