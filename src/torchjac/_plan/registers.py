"""The registers and steps of a program that is being recorded: which value stands where, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch import DisableTorchFunction
from .number import Number
from .steps import Nested, Take

#: Makes a named tuple of a tuple, without the call of its class
_new = tuple.__new__

#: A recording that holds more bytes than this is given up: there, Python is not what a call takes
MOST_BYTES = 1 << 27


class Register(NamedTuple):
    """A value of a program and where it comes from.

    Attributes:
        value: the value while recording; kept alive, so that its id stays its own.
        step: the number of the step that makes it, -1 for a constant.
        tables: the integer tensors from outside that alone decide it; None where anything else does.
        memory: the storage of a tensor, 0 for anything else.
    """

    value: Any
    step: int
    tables: frozenset[int] | None
    memory: int


class ProgramStep(NamedTuple):
    """A call: of a function on registers, its result in a register; ``writes`` is the register it writes into.

    ``kept`` tells that the step is a guard, or that its result is one: it is never dropped.
    """

    function: Callable[..., Any]
    reads: tuple[int, ...]
    register: int
    writes: int | None = None
    kept: bool = False


class Registers:
    """The values of a recording and the calls that make them; `failed` says why no program comes of it.

    ``origins`` are the objects from outside that a program gets anew at each run; ``at`` are the registers of what has
    one, by ids; ``guarded`` are the index tables whose entries were looked at; ``written`` are the tables that decide
    what was written into memory in place, None where anything else does; ``bytes`` is what all ``memories`` hold.
    """

    def __init__(self, origins: Sequence[Any]) -> None:
        self.failed: str | None = None
        self.registers: list[Register] = []
        self.steps: list[ProgramStep] = []
        self.at: dict[int, int] = {}
        self.guarded: set[int] = set()
        self.written: dict[int, frozenset[int] | None] = {}
        self.bytes = 0
        self.memories: set[int] = set()
        self.origins = list(origins)
        for origin in self.origins:
            self.at[id(origin)] = self._register(origin, -1, None)

    def fail(self, reason: str) -> None:
        """Give up: the computation goes on, and no program comes of it."""
        if self.failed is None:
            self.failed = reason
            self.registers, self.steps, self.at = [], [], {}

    def add(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
        writes: Any = None,
        kept: bool = False,
    ) -> None:
        """Note a call, its result in a register of its own: a tensor, or a sequence of tensors and Nones."""
        function, reads = self._call(func, args, kwargs)
        if self.failed is not None:
            return
        register = self._step(
            function, reads, result, None if writes is None else self.at.get(id(writes)), kept
        )
        if isinstance(result, (tuple, list)):
            for k, part in enumerate(result):
                if part is not None and id(part) not in self.at and self.failed is None:
                    self.at[id(part)] = self._step(Take(k), (register,), part)

    def _step(
        self,
        function: Any,
        reads: tuple[int, ...],
        result: Any,
        writes: int | None = None,
        kept: bool = False,
    ) -> int:
        tables = self._tables(reads)
        if writes is not None:
            memory = self.registers[writes].memory
            before = self.written.get(memory, frozenset())
            self.written[memory] = None if tables is None or before is None else before | tables
        register = self._register(result, len(self.steps), tables)
        self.steps.append(_new(ProgramStep, (function, reads, register, writes, kept)))
        if is_tensor(result):
            self.at[id(result)] = register
        return register

    def _tables(self, reads: Sequence[int]) -> frozenset[int] | None:
        found = _NO_TABLES
        for at in reads:
            _, _, tables, memory = self.registers[at]
            if tables is None:
                return None
            written = self.written.get(memory, _NO_TABLES) if memory else _NO_TABLES
            if written is None:
                return None
            if tables or written:
                found |= tables | written
        return found

    def _register(self, value: Any, step: int, tables: frozenset[int] | None) -> int:
        memory = self._memory(value) if is_tensor(value) else 0
        self.registers.append(_new(Register, (value, step, tables, memory)))
        return len(self.registers) - 1

    def _memory(self, value: Tensor) -> int:
        """Return the storage of a tensor, whose bytes count once."""
        memory = 0
        with DisableTorchFunction():  # each look at metadata would come to the recorder
            if value.layout is torch.strided and not value.is_meta:
                if not value._is_zerotensor():
                    memory = value.untyped_storage()._cdata
                if memory not in self.memories:  # views hold no memory of their own
                    self.memories.add(memory)
                    self.bytes += value.nbytes
                    if self.bytes > MOST_BYTES:
                        self.fail("large")
        return memory

    def constant(self, value: Any) -> int:
        """Return a register that holds the same at each run."""
        return self._register(value, -1, _NO_TABLES)

    def place(self, value: Any) -> int:
        """Return the register of a value: of a tensor or a number that was noted, or of a constant."""
        found = self.at.get(id(value))
        if found is not None:
            return found
        kind = type(value)
        if kind in _NUMBERS:
            return self.constant(value)
        if kind is Number:
            return value.register  # type: ignore[no-any-return]
        if is_tensor(value):
            self.fail("a tensor from outside")
            return -1
        if hasattr(value, "unbound"):  # it belongs to an object from outside
            return self._step(value.unbound().bound, (self.place(value.fn),), value)
        return self.constant(value)

    def _call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, tuple[int, ...]]:
        """Return a function of registers, and the registers."""
        simple = _SIMPLE.issuperset(map(type, args)) or not any(map(_holds, args))
        if simple and not (kwargs and _holds([*kwargs.values()])):
            return (partial(func, **kwargs) if kwargs else func), tuple([self.place(arg) for arg in args])
        reads: list[int] = []

        def slot(value: Any) -> int:
            reads.append(self.place(value))
            return len(reads) - 1

        return Nested(func, slot, args, kwargs), tuple(reads)

    def hold(self, tree: Any) -> None:
        """Take the tensors of a tuple, which were made unrecorded, for the same at each run."""
        if self.failed is not None:
            return
        if isinstance(tree, tuple):
            for part in tree:
                self.hold(part)
        elif is_tensor(tree) and id(tree) not in self.at:
            self.at[id(tree)] = self.constant(tree)


def is_tensor(value: Any) -> bool:
    """Return whether something is a tensor; `isinstance` alone takes ten times as long for whatever is none."""
    kind = type(value)
    return kind is Tensor or (kind not in _NO_TENSORS and isinstance(value, Tensor))


_NO_TABLES: frozenset[int] = frozenset()

_NUMBERS = frozenset((int, float, bool, type(None)))

_SIMPLE = _NUMBERS | {Tensor}

_NO_TENSORS = frozenset(
    (int, float, bool, str, tuple, list, slice, type(None), torch.Size, torch.dtype, Number)
)


def _holds(value: Any) -> bool:
    """Return whether something is a container with tensors in it."""
    kind = type(value)
    if kind is Tensor or kind in _NUMBERS:
        return False
    if isinstance(value, (list, tuple)):
        return any(type(part) is Number or is_tensor(part) or _holds(part) for part in value)
    return isinstance(value, slice) and _holds((value.start, value.stop, value.step))
