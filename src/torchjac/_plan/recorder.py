"""Recording a computation as a program: every call of PyTorch, with the registers that it reads and writes.

The computation runs as always, on real values. Beside it, a `TorchFunctionMode` notes each call. What Python looks at
becomes a guard: the metadata of tensors that come from outside, the outcome of a test of values, the entries of an
index table. A program is run again only where all its guards hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._torch import DisableTorchFunction, function_mode_count, pop_mode
from .number import Number, current
from .registers import Registers, is_tensor
from .steps import AttributePart, Check, Load, SameMemory, Whole, call

#: Methods that give values of a tensor to Python, so that what follows may depend on them
LOOKS = frozenset(
    ("__bool__", "__float__", "__int__", "__index__", "__complex__", "__contains__", "item", "tolist", "equal",
     "allclose", "is_nonzero", "numpy", "__array__")
)  # fmt: skip

#: Functions whose result has a shape that values decide
SHAPED_BY_VALUES = frozenset(
    ("nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "repeat_interleave", "bincount")
)

#: Methods that tell how a tensor lies in memory, which neither the key of a program nor its loads tell
LAYOUT_LOOKS = frozenset(("stride", "is_contiguous", "storage_offset"))

#: Methods that give the tensor itself, or a view that cannot be told from it, where the shape and dtype stay
SAME_IF_SHAPED = frozenset(("expand", "reshape", "to", "view"))

#: Methods that write into a tensor, beside those whose names end in one underscore
_IN_PLACE = frozenset(f"__i{op}__" for op in ("add", "sub", "mul", "truediv", "and", "or"))

#: Functions that read entries by masks
_READ_BY_MASKS = frozenset((Tensor.__getitem__, torch.ops.aten.index.Tensor, torch.where))

#: What only looks at the metadata of a tensor, which the key of a program or its loads tell
METADATA = frozenset(
    [getattr(Tensor, name).__get__
     for name in ("shape", "dtype", "device", "layout", "requires_grad", "ndim", "is_meta", "is_cpu", "is_cuda",
                  "is_nested", "is_sparse")]
    + [Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size,
       Tensor._is_zerotensor, Tensor.untyped_storage, Tensor.is_inference]
)  # fmt: skip


class CallKind(Enum):
    """The kinds of functions by what is noted of their calls."""

    METADATA = auto()
    LOOK = auto()
    SHAPED_BY_VALUES = auto()
    LAYOUT_LOOK = auto()
    SAME_IF_SHAPED = auto()
    MASKED = auto()
    IN_PLACE = auto()
    SET_ITEM = auto()
    OTHER = auto()


@lru_cache(maxsize=4096)
def _kind(func: Any) -> CallKind:
    """Return the kind of a function."""
    if func in METADATA:
        return CallKind.METADATA
    if func in _READ_BY_MASKS:
        return CallKind.MASKED
    name = getattr(func, "__name__", "")
    named = {
        **dict.fromkeys(LOOKS, CallKind.LOOK),
        **dict.fromkeys(SHAPED_BY_VALUES, CallKind.SHAPED_BY_VALUES),
        **dict.fromkeys(LAYOUT_LOOKS, CallKind.LAYOUT_LOOK),
        **dict.fromkeys(SAME_IF_SHAPED, CallKind.SAME_IF_SHAPED),
        **dict.fromkeys(_IN_PLACE, CallKind.IN_PLACE),
        "__setitem__": CallKind.SET_ITEM,
    }
    return named.get(name, CallKind.IN_PLACE if name[-1:] == "_" and name[-2:] != "__" else CallKind.OTHER)


def recorder() -> Recorder | None:
    """Return the recorder of this thread that is active, if any."""
    found: Recorder | None = current.recorder
    return found


def set_recorder(found: Recorder | None) -> None:
    """Make a recorder that of this thread."""
    current.recorder = found


class Recorder(Registers, TorchFunctionMode):
    """Notes what is computed while it is active."""

    def __init__(self, origins: Sequence[Any]) -> None:
        TorchFunctionMode.__init__(self)
        Registers.__init__(self, origins)
        self.active = False
        self.depth = 0
        self.same: list[Tensor] = []

    def __enter__(self) -> Recorder:
        """Become the recorder of this thread."""
        set_recorder(self)
        self.active = True
        self.depth = function_mode_count()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        if self.active:
            self.stop()

    def stop(self) -> None:
        """Note nothing from here on."""
        self.active = False
        set_recorder(None)
        if (
            function_mode_count() > self.depth
        ):  # an interrupt may have come while PyTorch had it off its stack
            pop_mode()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch and note it."""
        result = func(*args, **kwargs) if kwargs else func(*args)
        if self.failed is None and (kind := _kind(func)) is not CallKind.METADATA:
            self._note(kind, func, args, kwargs or {}, result)
        return result

    def _note(
        self, kind: CallKind, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any
    ) -> None:
        if kind is CallKind.MASKED:
            self.look_at(_masks(func, args))
        elif kind in (CallKind.LOOK, CallKind.SHAPED_BY_VALUES):
            self._look(func, args, kwargs, result)
        if kind is CallKind.LOOK or self.failed is not None:
            return
        if kind is CallKind.LAYOUT_LOOK:
            function, reads = self._call(func, args, kwargs)
            if self.failed is None:
                self._step(Check(function, result), reads, None, kept=True)
        elif is_tensor(result):
            if kind is not CallKind.SAME_IF_SHAPED or not self._is_first(result, args):
                writes = args[0] if kind is CallKind.IN_PLACE and args else None
                self.add(func, args, kwargs, result, writes=kwargs.get("out", writes))
        elif kind is CallKind.SET_ITEM:
            self.add(func, args, kwargs, None, writes=args[0])
        elif isinstance(result, (tuple, list)) and any(map(is_tensor, result)):
            self.add(func, args, kwargs, result)

    def _is_first(self, result: Tensor, args: Sequence[Any]) -> bool:
        """Return whether the shapes tell that a result is what was given; it then has its register."""
        at = self.at.get(id(args[0])) if args and is_tensor(args[0]) else None
        if at is None or result.shape != args[0].shape or result.dtype is not args[0].dtype:
            return False
        if result.device != args[0].device or not self.registers[at].memory:
            return False
        if result.untyped_storage()._cdata != self.registers[at].memory:
            return False
        self.same.append(result)
        self.at[id(result)] = at
        return True

    def _look(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        function, reads = self._call(func, args, kwargs)
        if self.failed is not None:
            return
        tables = self._tables(reads)
        if tables is not None:
            self.guarded |= tables
        elif isinstance(result, (bool, int, float)):
            self._step(Check(function, result), reads, None, kept=True)
        else:
            self.fail(f"values looked at by {getattr(func, '__name__', func)}")

    def look_at(self, tensors: Sequence[Tensor]) -> None:
        """Note that Python looks at the entries of index tables, or of masks, which then decide what follows."""
        reads = [self.place(tensor) for tensor in tensors]
        tables = self._tables(reads) if self.failed is None else None
        if tables is None:
            self.fail("a table or a mask that values decide")
        else:
            self.guarded |= tables

    def number(self, tensor: Tensor) -> float:
        """Return the number in a tensor of one entry, known to the program by its register and not by its value."""
        with DisableTorchFunction():
            value = float(tensor)
            if self.failed is not None:
                return value
            at = self.place(tensor)
            return value if self.failed is not None else self.derived(float, (at,), value)

    def derived(self, function: Callable[..., float], reads: tuple[int, ...], value: float) -> Number:
        """Return a number that a function gives of registers."""
        number = Number(value)
        number.register = self._step(function, reads, number)
        return number

    def tested(self, function: Callable[..., bool], numbers: Sequence[Any], outcome: bool) -> None:
        """Note that Python looked at the outcome of a test of numbers."""
        if self.failed is None:
            self._step(Check(function, outcome), tuple([self.place(n) for n in numbers]), None, kept=True)

    def source(self, read: Callable[..., Any], origin: Any, value: Any) -> None:
        """Note a tensor that is read from an object from outside, with all that may be looked at of it."""
        if not self._is_outside(origin):
            return
        if value is None:
            self._step(Load(read, value), (self.place(origin),), value, kept=True)
            return
        if id(value) in self.at:
            # The same tensor was read elsewhere: the program relies on that.
            self._step(SameMemory(read), (self.place(origin), self.at[id(value)]), None, kept=True)
            return
        with DisableTorchFunction():  # each look at metadata would come back here
            if value.layout is not torch.strided or type(value) not in _PLAIN:
                self.fail(f"a saved tensor of layout {value.layout} and type {type(value).__name__}")
                return
            at = self._step(Load(read, value), (self.place(origin),), value, kept=True)
            if not (value.is_floating_point() or value.is_complex()):
                self.registers[at] = self.registers[at]._replace(tables=frozenset((at,)))

    def loaded(self, origin: Any, name: str, value: Any) -> None:
        """Note that an attribute was read that may hold tensors; numbers are part of the key of a program."""
        if value is None or isinstance(value, Tensor):
            self.source(attrgetter(name), origin, value)
        elif isinstance(value, tuple):
            for k, part in enumerate(value):
                if part is None or isinstance(part, Tensor):
                    self.source(AttributePart(name, k), origin, part)

    def step_of(self, guard: Callable[..., None], origin: Any) -> None:
        """Note a guard of an object from outside."""
        if self._is_outside(origin):
            self._step(guard, (self.place(origin),), None, kept=True)

    def _is_outside(self, origin: Any) -> bool:
        """Return whether an object is one that a program gets anew at each run; give up where it is another."""
        if self.failed is None and id(origin) not in self.at:
            self.fail(f"a {type(origin).__name__} that was made while recording")
        return self.failed is None

    def formula(self, node: Any, cotangents: Sequence[Any], result: Any) -> None:
        """Note that a node was called; which results it has, and their shapes, follow from the key of the program."""
        if self._is_outside(node):
            self.add(call, (node, *cotangents), {}, result)

    def called(
        self, func: Callable[..., Any], args: Sequence[Any], result: Any, price: float | None = None
    ) -> None:
        """Note a call that is no function of PyTorch: which results it has, and of which shapes, must come again."""
        if self.failed is None:
            self.add(Whole(func, result, price), args, {}, result, kept=True)


_PLAIN = (Tensor, torch.nn.Parameter)


def _masks(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return the masks by which a call reads entries, so that values decide how many there are."""
    if func is torch.where:
        return [args[0]] if len(args) == 1 else []
    index = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
    return [part for part in index if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8)]
