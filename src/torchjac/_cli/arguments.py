"""The arguments that a command calls a function with: random tensors by shape, Python values, or a file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from . import number_format
from .errors import Stop, usage
from .memory import available

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


def from_spec(spec: str, fill: str, generator: torch.Generator) -> Any:
    """Return an argument from what follows ``--arg``: ``2,500``, ``float32:64,32``, ``float64:`` (a scalar), ``=0.5``.

    Floating-point tensors are random, "normal" or "uniform" between 0 and 1, in float64 where no dtype is
    given; others hold zeros. What follows ``=`` is a Python literal, passed as it is.

    Raises:
        Stop: where it is none of these.
    """
    with usage(f"--arg {spec}"):
        return _from_spec(spec, fill, generator)


def _from_spec(spec: str, fill: str, generator: torch.Generator) -> Any:
    if spec.startswith("="):
        try:
            return ast.literal_eval(spec[1:].strip())
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{spec[1:]!r} is no Python literal, as 0.5, 'mean' or (1, 2)") from error
    name, _, sizes = spec.rpartition(":")
    dtype = DTYPES.get(name) if ":" in spec else torch.float64
    if dtype is None:
        raise ValueError(f"unknown dtype {name!r}; known are {', '.join(DTYPES)}")
    try:
        shape = [int(size) for size in sizes.strip("()[] ").split(",") if size.strip()]
    except ValueError as error:
        raise ValueError(
            f"{sizes!r} is no shape; write sizes with commas, as 2,500 or float32:64,32"
        ) from error
    if min(shape, default=0) < 0:
        raise ValueError("sizes cannot be negative")
    made = torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else dtype
    taken, room = prod(shape) * made.itemsize, available()
    if room is not None and taken > room:
        raise ValueError(f"takes {number_format.size(taken)}, and {number_format.size(room)} can be had")
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.zeros(shape, dtype=dtype, device="cpu")
    draw = torch.rand if fill == "uniform" else torch.randn
    return draw(shape, dtype=made, device="cpu", generator=generator).to(dtype)


def from_file(path: Path) -> Any:
    """Return what is kept in a file: ``.pt`` (a tensor, a list or tuple, or a dict by name), ``.npz`` or ``.npy``.

    Raises:
        Stop: where it cannot be read.
    """
    if not path.is_file():
        raise Stop(f"--args {path}: no such file")
    with usage(f"--args {path}: cannot be read as tensors"):
        return _read(path)


def as_arguments(found: Any, function: Callable[..., Any], path: Path) -> tuple[Any, ...]:
    """Return what was kept in a file as positional arguments of a function: by name where it is a dict, else in order.

    Raises:
        Stop: where its names are not those of the function's arguments.
    """
    if not isinstance(found, dict):
        return tuple(found) if isinstance(found, (tuple, list)) else (found,)
    with usage(f"--args {path}, which holds {', '.join(map(str, found)) or 'nothing'}"):
        bound = signature(function).bind(**found)
    if bound.kwargs:
        raise Stop(
            f"--args {path}: {', '.join(bound.kwargs)} can only be given by keyword; wrap the function"
        )
    return bound.args


def _read(path: Path) -> Any:
    read, held = {
        ".npy": (_npy, "an array of numbers"),
        ".npz": (_npz, "arrays of numbers"),
        ".pt": (_pt, "tensors, numbers, strings, and lists, tuples and dicts of them"),
        ".pth": (_pt, "tensors, numbers, strings, and lists, tuples and dicts of them"),
    }.get(path.suffix, (None, ""))
    if read is None:
        raise ValueError(f"the name ends in {path.suffix or 'nothing'}; known are .pt, .pth, .npz and .npy")
    try:
        return read(path)
    except MemoryError:
        raise
    except Exception as error:  # its text may advise to run what the file says
        raise ValueError(f"it is damaged, or holds more than {held}") from error


def _npy(path: Path) -> Any:
    return torch.from_numpy(numpy.load(path))


def _npz(path: Path) -> Any:
    with numpy.load(path) as archive:
        found = {name: torch.from_numpy(archive[name]) for name in archive.files}
    unnamed = all(name == f"arr_{number}" for number, name in enumerate(found))
    return tuple(found.values()) if unnamed else found


def _pt(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


def check_count(function: Callable[..., Any], arguments: Sequence[Any], target: str) -> None:
    """Raise unless the function can be called with this number of arguments."""
    try:
        wanted = signature(function)
    except (TypeError, ValueError):  # a function written in C tells nothing
        return
    try:
        wanted.bind(*arguments)
    except TypeError as error:
        raise Stop(
            f"{target}{wanted} was given {len(arguments)} argument{'s' * (len(arguments) != 1)} ({error}); "
            "give each with --arg, or all in a file with --args"
        ) from error


def in_words(argument: Any) -> str:
    """Return an argument at a glance."""
    if isinstance(argument, Tensor):
        return f"{str(argument.dtype).removeprefix('torch.')} {tuple(argument.shape)}"
    if isinstance(argument, (tuple, list)):
        return f"({', '.join(map(in_words, argument))})"
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{name}: {in_words(value)}" for name, value in argument.items()) + "}"
    return repr(argument)
