"""The arguments that a command calls a function with: random tensors by shape, Python values, or a file."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from .stop import Stop

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


def from_spec(spec: str, fill: str, generator: torch.Generator) -> Any:
    """An argument from what follows ``--arg``: ``2,500``, ``float32:64,32``, ``float64:`` (a scalar), ``=0.5``.

    Floating-point tensors are random, "normal" or "uniform" between 0 and 1, in float64 where no dtype is
    given; others hold zeros. What follows ``=`` is a Python literal, passed as it is.

    Raises:
        Stop: where it is none of these.
    """
    if spec.startswith("="):
        try:
            return ast.literal_eval(spec[1:].strip())
        except (ValueError, SyntaxError) as error:
            raise Stop(
                f"--arg {spec}: {spec[1:]!r} is no Python literal, as 0.5, 'mean' or (1, 2)"
            ) from error
    name, _, sizes = spec.rpartition(":")
    dtype = DTYPES.get(name) if ":" in spec else torch.float64
    if dtype is None:
        raise Stop(f"--arg {spec}: unknown dtype {name!r}; known are {', '.join(DTYPES)}")
    try:
        shape = [int(size) for size in sizes.strip("()[] ").split(",") if size.strip()]
    except ValueError as error:
        raise Stop(
            f"--arg {spec}: {sizes!r} is no shape; write sizes with commas, as 2,500 or float32:64,32"
        ) from error
    if min(shape, default=0) < 0:
        raise Stop(f"--arg {spec}: sizes cannot be negative")
    if not (dtype.is_floating_point or dtype.is_complex):
        return torch.zeros(shape, dtype=dtype)
    draw = torch.rand if fill == "uniform" else torch.randn
    made = draw(shape, dtype=torch.complex128 if dtype.is_complex else torch.float64, generator=generator)
    return made.to(dtype)


def from_file(path: Path, function: Callable[..., Any]) -> tuple[Any, ...]:
    """The arguments kept in a file: ``.pt`` (a tensor, a list or tuple, or a dict by name), ``.npz`` or ``.npy``.

    Raises:
        Stop: where it cannot be read, or its names are not those of the function's arguments.
    """
    if not path.is_file():
        raise Stop(f"--args {path}: no such file")
    try:
        found = _read(path)
    except (pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise Stop(f"--args {path}: cannot be read as tensors ({str(error).splitlines()[0]})") from error
    if isinstance(found, dict):
        try:
            bound = signature(function).bind(**found)
        except TypeError as error:
            raise Stop(f"--args {path}: holds {', '.join(found)}, but {error}") from error
        if bound.kwargs:
            raise Stop(
                f"--args {path}: {', '.join(bound.kwargs)} can only be given by keyword; wrap the function"
            )
        return bound.args
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _read(path: Path) -> Any:
    if path.suffix == ".npy":
        return torch.from_numpy(numpy.load(path))
    if path.suffix == ".npz":
        with numpy.load(path) as archive:
            found = {name: torch.from_numpy(archive[name]) for name in archive.files}
        unnamed = all(name == f"arr_{number}" for number, name in enumerate(found))
        return tuple(found.values()) if unnamed else found
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=True, map_location="cpu")
    raise ValueError(f"the name ends in {path.suffix or 'nothing'}; known are .pt, .pth, .npz and .npy")


def check_count(function: Callable[..., Any], arguments: Sequence[Any], target: str) -> None:
    """Raise unless the function can be called with so many arguments."""
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
    """An argument at a glance."""
    if isinstance(argument, Tensor):
        return f"{str(argument.dtype).removeprefix('torch.')} {tuple(argument.shape)}"
    if isinstance(argument, (tuple, list)):
        return f"({', '.join(map(in_words, argument))})"
    if isinstance(argument, dict):
        return "{" + ", ".join(f"{name}: {in_words(value)}" for name, value in argument.items()) + "}"
    return repr(argument)
