"""Answers within a memory budget: as many rows at once as fit, found one range after another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, TypeVar

from .._accumulate.budget import Budget, OverBudgetError
from .._blocks.tracing import inside_functorch, is_tracing
from .._capture.state import undisturbed
from .call_function import Recorded

T = TypeVar("T")

#: What a unit of memory stands for, in bytes
_UNITS = {"": 1, **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g", "t"))}}
_UNITS.update({f"{prefix}ib": 1024**power for power, prefix in enumerate(("", "k", "m", "g", "t")) if power})

#: The factor by which rows must grow for another attempt, which is a walk
_WORTH = 1.25


def budget(memory: int | str | None, what: str, **others: Any) -> int | None:
    """Return a budget in bytes, None where there is none; raises where an argument is given that it excludes."""
    if memory is None:
        return None
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"{what}: give either memory, a number of bytes, or {name}; got {memory!r} and {value!r}"
            )
    return bytes_of(memory, what)


def bytes_of(memory: Any, what: str) -> int:
    """Return a budget in bytes, from an int or a string as "500 MB".

    >>> bytes_of("1.5 GB", "jacrev"), bytes_of("2MiB", "jacrev"), bytes_of(10, "jacrev")
    (1500000000, 2097152, 10)
    """
    needs = f'{what}: memory must be a positive number of bytes, as 500_000_000, "500 MB" or "2 GiB"'
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", memory)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f"{needs}; got {memory!r}")
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    elif isinstance(memory, int) and not isinstance(memory, bool):
        size = memory
    else:
        raise TypeError(f"{needs}; got {memory!r} of type {type(memory).__name__}")
    if size <= 0:
        raise ValueError(f"{needs}; got {memory!r}")
    return size


def check_within(recorded: Recorded, what: str) -> None:
    """Raise where more than the answer must be kept, whatever the budget."""
    if inside_functorch() or is_tracing():
        raise RuntimeError(
            f"{what}: memory= cannot be kept inside a torch.func transform or a trace, which keep what is computed; "
            "leave it out there, or take the transform of a part of the samples"
        )
    if recorded.captured.records:
        raise RuntimeError(
            f"{what}: memory= keeps no graph, but the Jacobian is asked to be differentiable (an input or a captured "
            "tensor requires gradients), and a graph holds what every range of rows was made of, whatever the budget; "
            "call it under torch.no_grad(), or without memory="
        )


def plan(
    find: Callable[[range], T], shape: Sequence[int], most: int, what: str, at_most: int | None = None
) -> tuple[int, T | None]:
    """Return how many rows of an output to find at once within a budget, and the first answer, if that is there.

    All at once, or no more than ``at_most``, if they fit. Else a row, and then as many as the bytes of those before
    tell, in whole slices of the output where one fits.
    """
    count = prod(shape) if at_most is None else min(prod(shape), at_most)

    def attempt(rows: int) -> tuple[T, int]:
        with undisturbed(), Budget(most) as budget:
            found = find(range(rows))
        return found, budget.peak

    try:
        return count, attempt(count)[0]
    except OverBudgetError as error:
        if count == 1:
            raise _too_small(error, what) from None
    try:
        found: T | None
        found, peak = attempt(1)
    except OverBudgetError as error:
        raise _too_small(error, what) from None
    rows, limit, each = 1, count, float(peak)
    while True:
        more = rows + (most - peak) / each if each else limit - 1
        fits = _sliced(int(min(more, limit - 1)), shape)
        if fits < _WORTH * rows:
            return rows, found
        found = None  # it goes before the next is made
        try:
            found, reached = attempt(fits)
            rows, peak, each = fits, reached, max((reached - peak) / (fits - rows), 0.0)
        except OverBudgetError:
            limit, each = fits, max(each, 2 * (most - peak) / max(fits - rows, 1))


def _sliced(rows: int, shape: Sequence[int]) -> int:
    """Return the most rows, up to a bound, that are whole slices of an output."""
    inner = next((prod(shape[dim:]) for dim in range(1, len(shape) + 1) if prod(shape[dim:]) <= rows), 1)
    return rows - rows % inner


def _too_small(error: OverBudgetError, what: str) -> MemoryError:
    return MemoryError(f"{what}: a single row needs more than the memory there is for it, {error}; give more")


def in_ranges(
    find: Callable[[range], T], shape: Sequence[int], rows: int, first: T | None, most: int, what: str
) -> Iterator[tuple[range, T]]:
    """Yield what is found of all rows of an output, ``rows`` at once from the first; fewer where those do not fit."""
    count = prod(shape)
    for begin in range(0, count, rows):
        if not begin and first is not None:
            yield range(rows), first
            first = None  # the caller may drop it
        else:
            yield from fitting(find, range(begin, min(begin + rows, count)), most, what)


def fitting(find: Callable[[range], T], rows: range, most: int, what: str) -> Iterator[tuple[range, T]]:
    """Yield what is found of some rows, all at once or, where a budget is too small for that, by halves."""
    try:
        with undisturbed(), Budget(most):
            found = find(rows)
    except OverBudgetError as error:
        if len(rows) == 1:
            raise _too_small(error, what) from None
    else:
        yield rows, found
        return
    middle = (rows.start + rows.stop) // 2
    yield from fitting(find, range(rows.start, middle), most, what)
    yield from fitting(find, range(middle, rows.stop), most, what)


def within(
    find: Callable[[range], T], shape: Sequence[int], most: int, what: str
) -> Iterator[tuple[range, T]]:
    """Yield what is found of all rows of an output, as many at once as fit a budget."""
    if prod(shape):
        yield from in_ranges(find, shape, *plan(find, shape, most, what), most, what)
