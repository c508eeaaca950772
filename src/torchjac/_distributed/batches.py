"""Batches and the functions called on them, as sums and tiles use them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor


def arguments(batch: Any) -> tuple[Any, ...]:
    """Return what a batch is to a function: a tuple or list of arguments, or a single one."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def check_batches(data: Any, what: str) -> None:
    """Raise unless something can be gone through, by its own iterator or by numbers from 0."""
    if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise TypeError(f"{what}: data must be batches, as a DataLoader or a list, got {type(data).__name__}")


def at_least_one_dim(func: Callable[..., Tensor], what: str) -> Callable[..., Tensor]:
    """Return a function that gives a vector of one number instead of a number alone."""

    @wraps(func)
    def found(*args: Any) -> Tensor:
        output: Any = func(*args)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"{what}: func must give one tensor, got {type(output).__name__}; torch.cat makes one of several"
            )
        return output if output.dim() else output[None]

    return found


def add_diagonal(into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the diagonal of a product."""
    into += (left.mT * right).sum(0)


def shaped(given: Any, output: Tensor, what: str, square: bool = False) -> Tensor:
    """Return what a caller's function gives, if it has the output's shape, or a square matrix for each sample."""
    if not isinstance(given, Tensor):
        raise TypeError(f"sums: {what} must give a tensor, got {type(given).__name__}")
    values: Tensor = given.detach()
    shape, many = tuple(output.shape), (*output.shape, *output.shape[1:])
    if values.dim() == 0 and shape == (1,):
        values = values[None]
    if tuple(values.shape) == shape or (square and tuple(values.shape) == many):
        return values
    raise ValueError(
        f"sums: {what} must give a tensor of shape {shape}"
        + f" or {many}" * square
        + f", got {tuple(values.shape)}"
    )
