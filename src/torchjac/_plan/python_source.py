"""Steps as lines of Python: what a step would call and compare in a frame of its own is in the program's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from .._torch import requires_grad_of
from .steps import Check, Into, Load, MismatchError, Nested, Take, call


def spell(
    function: Callable[..., Any], register: str, args: Sequence[str], own: str, names: dict[str, Any]
) -> list[str]:
    """Return the lines of a step that puts its result into a register; ``names`` takes what they name."""
    names["MismatchError"], names["requires_grad_of"] = MismatchError, requires_grad_of
    if type(function) is Take:
        return [f"    {register} = {args[0]}[{function.k}]"]
    if function is call:
        return [f"    {register} = {args[0]}({', '.join(args[1:])})"]
    if type(function) is Load and function.shape is not None and type(function.read) in _READS:
        read = _READS[type(function.read)].format(*function.read.__reduce__()[1])
        names[f"s{own}"], names[f"d{own}"], names[f"p{own}"] = function.shape, function.dtype, function.device
        differs = (
            f"{register} is None or {register}.shape != s{own} or {register}.dtype is not d{own} "
            f"or requires_grad_of({register}) is not {function.requires_grad} or {register}.device != p{own}"
        )
        return [f"    {register} = {args[0]}{read}", f"    if {differs}: raise MismatchError"]
    if type(function) is Check and _is_exact(function.expected):
        names[f"f{own}"] = function.function
        differs = "is not" if type(function.expected) is bool else "!="
        return [f"    if f{own}({', '.join(args)}) {differs} {function.expected!r}: raise MismatchError"]
    if type(function) is Into:
        names[f"f{own}"] = function.function
        return [f"    {register} = f{own}({', '.join(args[:-1])}, out={args[-1]})"]
    if type(function) is Nested:
        names[f"f{own}"] = function.function
        values = [tree.spell(args.__getitem__, names) for tree in function.args]
        values += [f"{name}={tree.spell(args.__getitem__, names)}" for name, tree in function.kwargs.items()]
        return [f"    {register} = f{own}({', '.join(values)})"]
    names[f"f{own}"] = function
    return [f"    {register} = f{own}({', '.join(args)})"]


#: How a part of an object is read, by its kind
_READS: dict[Any, str] = {attrgetter: ".{}", itemgetter: "[{}]"}


def _is_exact(expected: Any) -> bool:
    """Return whether what equals an outcome is one like it: strides are all ints."""
    kinds = map(type, expected) if type(expected) is tuple else (type(expected),)
    return all(kind is int for kind in kinds) or type(expected) is bool
