"""A program in lines to read: what each step calls, of what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

from torch import Tensor

from .program import Program
from .steps import Check, Equal, Into, Load, Nested, SameMemory, Take, Whole, call


def listing(program: Program, origins: Sequence[str]) -> str:
    """Return a line for each step; ``origins`` are names of what comes from outside, v0, v1, … are registers."""
    made = {step.register for step in program.steps}

    def read(at: int) -> str:
        if at < len(origins):
            return origins[at]
        return f"v{at - len(origins)}" if at in made else _constant(program.registers[at])

    lines = [
        _line(step.function, read(step.register), [read(at) for at in step.reads]) for step in program.steps
    ]
    return "\n".join([*lines, f"return {program.result.spell(read, {})}"])


def _line(function: Any, register: str, reads: list[str]) -> str:
    if type(function) is Check:
        return f"check {_name(function.function)}({', '.join(reads)}) is {function.expected!r}"
    if type(function) is SameMemory:
        return f"check {_loaded(function.load, reads[0])} is {reads[1]}"
    if type(function) is Equal:
        return f"{register} = {_loaded(function.load, reads[0])}, with the entries that were recorded"
    if type(function) is Load:
        return f"{register} = {_loaded(function, reads[0])}"
    if type(function) is Take:
        return f"{register} = {reads[0]}[{function.k}]"
    if function is call:
        return f"{register} = {reads[0]}({', '.join(reads[1:])})"
    if type(function) is Into:
        return f"{register} = {_name(function.function)}({', '.join(reads[:-1])}, out={reads[-1]})"
    if type(function) is Nested:
        values = [tree.spell(reads.__getitem__, {}) for tree in function.args]
        values += [f"{name}={tree.spell(reads.__getitem__, {})}" for name, tree in function.kwargs.items()]
        return f"{register} = {_name(function.function)}({', '.join(values)})"
    return f"{register} = {_name(function)}({', '.join(reads)})"


def _loaded(load: Callable[[Any], Any], origin: str) -> str:
    read = load.read if type(load) is Load else load
    if type(read) is attrgetter:
        return f"{origin}.{read.__reduce__()[1][0]}"
    if type(read) is itemgetter:
        return f"{origin}[{read.__reduce__()[1][0]}]"
    return f"{origin}.{getattr(read, 'name', _name(read))}"


def _name(function: Any) -> str:
    while isinstance(function, (partial, Whole)):
        function = function.func if isinstance(function, partial) else function.function
    return getattr(function, "__name__", type(function).__name__)


def _constant(value: Any) -> str:
    return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
