"""Messages to the recorder of this thread: a call is one step, or none, or no program comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._torch import DisableTorchFunction, pop_mode, push_mode
from .recorder import recorder, set_recorder
from .steps import Priced

T = TypeVar("T")


def refuse_program(reason: str) -> None:
    """Tell the recorder that no program can be made of what follows."""
    found = recorder()
    if found is not None:
        found.fail(reason)
        found.stop()


def engine_runs() -> None:
    """Tell the recorder that PyTorch's engine takes over."""
    refuse_program("PyTorch's engine")


def look_at(tables: Sequence[Tensor]) -> None:
    """Tell the recorder that the entries of index tables decide what follows."""
    found = recorder()
    if found is not None:
        found.look_at(tables)


def have_shape(results: Iterable[Tensor | None], shape: Sequence[int]) -> bool:
    """Return whether all results have a shape. To the recorder each look would be a call of PyTorch."""
    with DisableTorchFunction():
        return all(result is None or result.shape == shape for result in results)


def is_like(result: Tensor, shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Return whether a result has a shape and a dtype; see `have_shape`."""
    with DisableTorchFunction():
        return result.dtype is dtype and result.shape == shape


def hold(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return tensors made unrecorded of shapes and numbers alone, which the recorder takes for the same at each run."""
    found = recorder()
    if found is not None:
        found.hold(tensors)
    return tensors


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


def objects(function: Callable[..., Any], args: Sequence[Any], result: Sequence[Any], price: float) -> None:
    """Tell the recorder that a function makes objects, from which the steps that follow read."""
    found = recorder()
    if found is not None and found.failed is None:
        found.add(Priced(function, price), args, {}, result)


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
