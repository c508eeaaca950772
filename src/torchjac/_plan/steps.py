"""The functions that steps of a program call, beside those of PyTorch: guards among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from .._torch import requires_grad_of


class MismatchError(Exception):
    """A guard of a program does not hold: the computation has to be recorded anew."""


@dataclass(slots=True, eq=False)
class Check:
    """A test whose outcome the program was recorded with."""

    function: Callable[..., Any]
    expected: Any

    def __call__(self, *args: Any) -> None:
        """Raise MismatchError if the outcome is another one."""
        found = self.function(*args)
        if found is not self.expected and not (type(found) is type(self.expected) and found == self.expected):
            raise MismatchError


@dataclass(slots=True, eq=False)
class SameMemory:
    """A guard: what is loaded from an object is the very tensor that was loaded before."""

    load: Callable[[Any], Any]

    def __call__(self, origin: Any, other: Any) -> None:
        """Raise MismatchError if it is another one."""
        if self.load(origin) is not other:
            raise MismatchError


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call an object from outside."""
    return function(*args)


@dataclass(slots=True, eq=False)
class Take:
    """One of several results."""

    k: int

    def __call__(self, results: Sequence[Any]) -> Any:
        """Return it."""
        return results[self.k]


@dataclass(slots=True, eq=False)
class AttributePart:
    """Read one of the tensors of an attribute."""

    name: str
    k: int

    def __call__(self, origin: Any) -> Any:
        """Return it; raise MismatchError where there is none."""
        parts = getattr(origin, self.name)
        if len(parts) <= self.k:
            raise MismatchError
        return parts[self.k]


class Load:
    """Read a tensor that a node saved, and check all that may be looked at of it but its values."""

    __slots__ = ("device", "dtype", "read", "requires_grad", "shape")

    def __init__(self, read: Callable[[Any], Any], value: Tensor | None) -> None:
        self.read = read
        self.shape = None if value is None else value.shape
        if value is not None:
            self.dtype, self.device = value.dtype, value.device
            self.requires_grad = requires_grad_of(value)

    def __call__(self, origin: Any) -> Tensor | None:
        """Return the tensor; raise MismatchError if it is not like the one that was recorded."""
        value: Tensor | None = self.read(origin)
        if value is None or self.shape is None:
            if value is not None or self.shape is not None:
                raise MismatchError
            return None
        if (
            value.shape != self.shape
            or value.dtype is not self.dtype
            or requires_grad_of(value) is not self.requires_grad
            or value.device != self.device
        ):
            raise MismatchError
        return value


@dataclass(slots=True, eq=False)
class Equal:
    """A load of an index table, of which every entry was looked at."""

    load: Callable[[Any], Any]
    table: Tensor

    def __call__(self, origin: Any) -> Tensor:
        """Return the table of the recording; raise MismatchError if the one that is loaded has other entries."""
        value = self.load(origin)
        if value is None or not value.equal(self.table):
            raise MismatchError
        return self.table


@dataclass(slots=True, eq=False)
class Priced:
    """A call that takes ``price``, in microseconds, which nothing that it gives tells."""

    function: Callable[..., Any]
    price: float

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)


class Whole:
    """A call whose results must be there, and have the shapes, as when it was recorded."""

    __slots__ = ("function", "made", "price", "several")

    def __init__(self, function: Callable[..., Any], result: Any, price: float | None = None) -> None:
        self.function = function
        self.price = price
        self.several = isinstance(result, (tuple, list))
        self.made = [_made(part) for part in (result if self.several else (result,))]

    def __call__(self, *args: Any) -> Any:
        """Return the results; raise MismatchError if they are others."""
        result = self.function(*args)
        for part, made in zip(result if self.several else (result,), self.made, strict=True):
            if (part is None) is not (made is None):
                raise MismatchError
            if made is not None and part.shape != made:
                raise MismatchError
        return result


def _made(part: Tensor | None) -> Any:
    return None if part is None else part.shape


@dataclass(slots=True, eq=False)
class Into:
    """A call that writes its result into the last argument."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Return it."""
        return self.function(*args[:-1], out=args[-1])


class Nested:
    """A call with registers inside containers: lists of tensors, indices, keyword arguments."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(
        self, function: Callable[..., Any], slot: Callable[[Any], int], args: Any, kwargs: Any
    ) -> None:
        self.function = function
        self.args = [build(arg, slot) for arg in args]
        self.kwargs = {name: build(value, slot) for name, value in kwargs.items()}

    def __call__(self, *values: Any) -> Any:
        """Call the function."""
        args = [put(values) for put in self.args]
        return self.function(*args, **{name: put(values) for name, put in self.kwargs.items()})


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a step calls, without the containers that its arguments stand in."""
    return function.function if type(function) is Nested else function


def build(tree: Any, slot: Callable[[Any], int | None]) -> Tree:
    """Return a tree to be made again; ``slot`` gives the place of a leaf, None where it is a constant."""
    if type(tree) in (list, tuple) or hasattr(tree, "_fields"):
        parts = [build(part, slot) for part in tree]
        if type(tree) is not list and all(type(part) is _Constant for part in parts):
            return _Constant(tree)
        return _Sequence(list if type(tree) is list else _make(tree), parts)
    at = None if tree is None or isinstance(tree, (str, bool)) else slot(tree)
    return _Constant(tree) if at is None else _Slot(at)


def _make(tree: Any) -> Callable[[Any], Any]:
    """Return what makes a tuple of a list of its items; a named one may know more than its fields."""
    make: Any = getattr(tree, "_remake", None) or getattr(type(tree), "_make", tuple)
    return make  # type: ignore[no-any-return]


@dataclass(slots=True, eq=False)
class _Sequence:
    make: Callable[..., Any]
    parts: list[Tree]

    def __call__(self, values: Sequence[Any]) -> Any:
        return self.make([part(values) for part in self.parts])

    def spell(self, read: Callable[[int], str], names: dict[str, Any]) -> str:
        inner = "".join(part.spell(read, names) + ", " for part in self.parts)
        if self.make is list:
            return f"[{inner}]"
        if self.make is tuple:
            return f"({inner})"
        names[name := f"m{len(names)}"] = self.make
        return f"{name}(({inner}))"


@dataclass(slots=True, eq=False)
class _Constant:
    value: Any

    def __call__(self, values: Sequence[Any]) -> Any:
        return self.value

    def spell(self, read: Callable[[int], str], names: dict[str, Any]) -> str:
        if self.value is None or type(self.value) in (int, bool, str):
            return repr(self.value)
        names[name := f"m{len(names)}"] = self.value
        return name


@dataclass(slots=True, eq=False)
class _Slot:
    at: int

    def __call__(self, values: Sequence[Any]) -> Any:
        return values[self.at]

    def spell(self, read: Callable[[int], str], names: dict[str, Any]) -> str:
        return read(self.at)


#: A tree of lists and tuples whose leaves are constants or values at places. Called, it gives the tree with these
#: values; ``spell`` gives it as an expression, where ``read`` spells a place and ``names`` takes constants
Tree: TypeAlias = _Sequence | _Constant | _Slot
