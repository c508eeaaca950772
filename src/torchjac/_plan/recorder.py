"""Recording a computation as a program: every call of PyTorch, with the registers that it reads and writes.

The computation runs as always, on real values. Beside it, a `TorchFunctionMode` notes each call. What Python looks at
becomes a guard: the metadata of tensors that come from outside, the outcome of a test of values, the entries of an
index table. A program is run again only where all its guards hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._torch import DisableTorchFunction, pop_mode, push_mode
from .number import Number, current
from .steps import Check, Load, Nested, Part, SameMemory, Take, Whole, call

T = TypeVar("T")

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

#: What only looks at the metadata of a tensor, which the key of a program or its loads tell
METADATA = frozenset(
    [getattr(Tensor, name).__get__
     for name in ("shape", "dtype", "device", "layout", "requires_grad", "ndim", "is_meta", "is_cpu", "is_cuda",
                  "is_nested", "is_sparse")]
    + [Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size,
       Tensor._is_zerotensor, Tensor.untyped_storage, Tensor.is_inference]
)  # fmt: skip

#: A recording that holds more bytes than this is given up: there, Python is not what a call takes
MOST_BYTES = 1 << 27


def recorder() -> Recorder | None:
    """Return the recorder of this thread that is active, if any."""
    found: Recorder | None = getattr(current, "recorder", None)
    return found


def set_recorder(found: Recorder | None) -> None:
    """Make a recorder that of this thread."""
    current.recorder = found


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


class Step(NamedTuple):
    """A call: of a function on registers, its result in a register; ``writes`` is the register it writes into.

    ``kept`` tells that the step is a guard, or that its result is one: it is never dropped.
    """

    function: Callable[..., Any]
    reads: tuple[int, ...]
    register: int
    writes: int | None = None
    kept: bool = False


class Recorder(TorchFunctionMode):
    """Notes what is computed while it is active; `failed` says why no program comes of it.

    ``origins`` are the objects from outside that a program gets anew at each run; ``at`` are the registers of what has
    one, by ids; ``guarded`` are the index tables whose entries were looked at; ``written`` are the tables that decide
    what was written into memory in place, None where anything else does; ``bytes`` is what all ``memories`` hold.
    """

    def __init__(self, origins: Sequence[Any]) -> None:
        super().__init__()
        self.failed: str | None = None
        self.active = False
        self.registers: list[Register] = []
        self.steps: list[Step] = []
        self.at: dict[int, int] = {}
        self.guarded: set[int] = set()
        self.written: dict[int, frozenset[int] | None] = {}
        self.bytes = 0
        self.same: list[Tensor] = []
        self.memories: set[int] = set()
        self.origins = list(origins)
        for origin in self.origins:
            self.at[id(origin)] = self._register(origin, -1, None)

    def __enter__(self) -> Recorder:
        """Become the recorder of this thread."""
        current.recorder = self
        self.active = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        if self.active:
            self.stop()

    def stop(self) -> None:
        """Note nothing from here on."""
        self.active = False
        current.recorder = None
        pop_mode()

    def fail(self, reason: str) -> None:
        """Give up: the computation goes on, and no program comes of it."""
        if self.failed is None:
            self.failed = reason
            self.registers, self.steps, self.at = [], [], {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch and note it."""
        result = func(*args, **kwargs) if kwargs else func(*args)
        if self.failed is None and func not in METADATA:
            self._note(func, args, kwargs or {}, result)
        return result

    def _note(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", "")
        masks = _masks(func, args)
        if masks:
            self._count(masks)
        elif name in LOOKS or name in SHAPED_BY_VALUES:
            self._look(func, args, kwargs, result)
        if name in LOOKS or self.failed is not None:
            return
        if name in LAYOUT_LOOKS:
            function, reads = self._call(func, args, kwargs)
            if self.failed is None:
                self._step(Check(function, result), reads, None, kept=True)
        elif _is_tensor(result):
            if name in SAME_IF_SHAPED and self._is_first(result, args):
                return
            if (name[-1:] == "_" and name[-2:] != "__") or name in _IN_PLACE or "out" in kwargs:
                self.add(func, args, kwargs, result, writes=kwargs.get("out", args[0] if args else None))
            else:
                self.add(func, args, kwargs, result)
        elif name == "__setitem__":
            self.add(func, args, kwargs, None, writes=args[0])
        elif isinstance(result, (tuple, list)) and any(map(_is_tensor, result)):
            self.add(func, args, kwargs, result)

    def _is_first(self, result: Tensor, args: Sequence[Any]) -> bool:
        """Return whether the shapes tell that a result is what was given; it then has its register."""
        at = self.at.get(id(args[0])) if args and _is_tensor(args[0]) else None
        if at is None or result.shape != args[0].shape or result.dtype is not args[0].dtype:
            return False
        if result.device != args[0].device or not self.registers[at].memory:
            return False
        if result.untyped_storage()._cdata != self.registers[at].memory:
            return False
        self.same.append(result)
        self.at[id(result)] = at
        return True

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
        self.steps.append(Step(function, reads, register, writes, kept))
        if _is_tensor(result):
            self.at[id(result)] = register
        return register

    def _tables(self, reads: Sequence[int]) -> frozenset[int] | None:
        found: frozenset[int] = frozenset()
        for at in reads:
            _, _, tables, memory = self.registers[at]
            written = self.written.get(memory, frozenset()) if memory else frozenset()
            if tables is None or written is None:
                return None
            found |= tables | written
        return found

    def _register(self, value: Any, step: int, tables: frozenset[int] | None) -> int:
        memory = 0
        if _is_tensor(value) and value.layout is torch.strided and not value.is_meta:
            if not value._is_zerotensor():
                memory = value.untyped_storage()._cdata
            if memory not in self.memories:  # views hold no memory of their own
                self.memories.add(memory)
                self.bytes += value.numel() * value.element_size()
            if self.bytes > MOST_BYTES:
                self.fail("large")
        self.registers.append(Register(value, step, tables, memory))
        return len(self.registers) - 1

    def constant(self, value: Any) -> int:
        """Return a register that holds the same at each run."""
        return self._register(value, -1, frozenset())

    def place(self, value: Any) -> int:
        """Return the register of a value: of a tensor or a number that was noted, or of a constant."""
        kind = type(value)
        if kind is int or value is None:
            return self.constant(value)
        if kind is Number or _is_tensor(value):
            found = value.register if kind is Number else self.at.get(id(value))
            if found is None:
                self.fail("a tensor from outside")
                return -1
            return found
        if id(value) in self.at:
            return self.at[id(value)]
        if hasattr(value, "unbound"):  # it belongs to an object from outside
            return self._step(value.unbound().bound, (self.place(value.fn),), value)
        return self.constant(value)

    def _call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, tuple[int, ...]]:
        """Return a function of registers, and the registers."""
        if not _any_holds(args) and not (kwargs and _holds(list(kwargs.values()))):
            return (partial(func, **kwargs) if kwargs else func), tuple([self.place(arg) for arg in args])
        reads: list[int] = []

        def slot(value: Any) -> int:
            reads.append(self.place(value))
            return len(reads) - 1

        return Nested(func, slot, args, kwargs), tuple(reads)

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

    def _count(self, masks: Sequence[Tensor]) -> None:
        """Note that how many entries of masks are true decides a shape."""
        tables = self._tables([self.place(mask) for mask in masks]) if self.failed is None else None
        if tables is None:
            self.fail("a mask that values decide")
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
        if isinstance(value, Tensor) and id(value) in self.at:
            # The same tensor was read elsewhere: the program relies on that.
            self._step(SameMemory(read), (self.place(origin), self.at[id(value)]), None, kept=True)
            return
        if isinstance(value, Tensor) and (value.layout is not torch.strided or type(value) not in _PLAIN):
            self.fail(f"a saved tensor of layout {value.layout} and type {type(value).__name__}")
            return
        at = self._step(Load(read, value), (self.place(origin),), value, kept=True)
        if isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex()):
            self.registers[at] = self.registers[at]._replace(tables=frozenset((at,)))

    def loaded(self, origin: Any, name: str, value: Any) -> None:
        """Note that an attribute was read that may hold tensors; numbers are part of the key of a program."""
        if value is None or isinstance(value, Tensor):
            self.source(attrgetter(name), origin, value)
        elif isinstance(value, tuple):
            for k, part in enumerate(value):
                if part is None or isinstance(part, Tensor):
                    self.source(Part(name, k), origin, part)

    def step_of(self, guard: Callable[..., None], origin: Any) -> None:
        """Note a guard of an object from outside."""
        if self._is_outside(origin):
            self._step(guard, (self.place(origin),), None, kept=True)

    def _is_outside(self, origin: Any) -> bool:
        """Return whether an object is one that a program gets anew at each run; give up where it is another."""
        if self.failed is None and id(origin) not in self.at:
            self.fail(f"a {type(origin).__name__} that was made while recording")
        return self.failed is None

    def hold(self, tree: Any) -> None:
        """Take the tensors of a tuple, which were made unrecorded, for the same at each run."""
        if self.failed is not None:
            return
        if isinstance(tree, tuple):
            for part in tree:
                self.hold(part)
        elif _is_tensor(tree) and id(tree) not in self.at:
            self.at[id(tree)] = self.constant(tree)

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
_IN_PLACE = frozenset(f"__i{op}__" for op in ("add", "sub", "mul", "truediv", "and", "or"))


def _masks(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return the masks by which a call reads entries, so that values decide how many there are."""
    if func is Tensor.__getitem__ or func is torch.ops.aten.index.Tensor:
        index = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
        return [
            part for part in index if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8)
        ]
    return [args[0]] if func is torch.where and len(args) == 1 else []


def _is_tensor(value: Any) -> bool:
    """Return whether something is a tensor; `isinstance` alone takes ten times as long for whatever is none."""
    kind = type(value)
    return kind is Tensor or (kind not in _NO_TENSORS and isinstance(value, Tensor))


_NO_TENSORS = frozenset(
    (int, float, bool, str, tuple, list, slice, type(None), torch.Size, torch.dtype, Number)
)


def _any_holds(values: Sequence[Any]) -> bool:
    return any(type(value) is not Tensor and type(value) is not int and _holds(value) for value in values)


def _holds(value: Any) -> bool:
    """Return whether something is a container with tensors in it."""
    if isinstance(value, (list, tuple)):
        return any(type(part) is Number or _is_tensor(part) or _holds(part) for part in value)
    return isinstance(value, slice) and _holds((value.start, value.stop, value.step))


def refuse_program(reason: str) -> None:
    """Tell the recorder that no program can be made of what follows."""
    found = recorder()
    if found is not None:
        found.fail(reason)
        found.stop()


def engine_runs() -> None:
    """Tell the recorder that PyTorch's engine takes over."""
    refuse_program("PyTorch's engine")


class unrecorded:  # a context manager, and used as one
    """Let what is called inside be no part of the program."""

    def __enter__(self) -> None:
        self.found = recorder()
        if self.found is not None:
            set_recorder(None)
            pop_mode()

    def __exit__(self, *_: object) -> None:
        if self.found is not None:
            push_mode(self.found)
            set_recorder(self.found)


def whole(
    function: Callable[..., T], price: Callable[..., float | None] = lambda *_: None
) -> Callable[..., T]:
    """Make a function one step of a program: what it calls is not noted, and it is called again at each run.

    It takes tensors and objects from outside, by position, and gives a tensor or a sequence of tensors and Nones.
    ``price`` tells of the same arguments what a call takes, None where it is what most take (`price.WHOLE`).
    """

    @wraps(function)
    def step(*args: Any) -> T:
        found = recorder()
        if found is None or found.failed is not None:
            return function(*args)
        with unrecorded():
            result = function(*args)
            found.called(function, args, result, price(*args))
        return result

    return step
