"""A block's rows as the digits of numbers, its columns as steps along them: what is compared where boxes are cut.

The positions along a dim are written in units of the steps that labels take there, as numbers are in a mixed radix; a
label then runs along one digit, from one of its values to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

from .maps import Affine, Label


class Range(NamedTuple):
    """The positions of one digit of the rows that a block covers: from ``low`` to ``high``, along a label if any."""

    low: int
    high: int
    dim: int | None


class Placed(NamedTuple):
    """A block as rows and columns: a range for each digit, the column's offset, steps along digits and free labels.

    ``free`` holds step, size and dim of the labels of the columns alone, the longest step first; ``flips`` are the
    dims that are read backwards.
    """

    ranges: tuple[Range, ...]
    offset: int
    steps: tuple[int, ...]
    free: tuple[tuple[int, int, int], ...]
    flips: frozenset[int]
    dims: int

    @property
    def span(self) -> int:
        """The reach of the columns of one row."""
        return sum(step * (size - 1) for step, size, _ in self.free)

    @property
    def width(self) -> int:
        """The number of columns in one row."""
        return prod(size for _, size, _ in self.free)


def units_of(maps: Sequence[Affine]) -> list[int]:
    """Return the steps of a dim's labels, one first, if each divides the next, as units of a number do; else empty."""
    found = sorted({1, *(abs(step) for map_ in maps for label, step in map_.terms if label.size > 1)})
    return found if all(b % a == 0 for a, b in pairwise(found)) else []


def placed(
    out: tuple[Affine, ...],
    wrt: tuple[Affine, ...],
    over: Sequence[Label],
    units: list[list[int]],
    digits: list[list[int]],
    in_shape: Sequence[int],
) -> Placed | None:
    dims = {label: dim for dim, label in enumerate(over)}
    rows = [(map_.offset, {dims[x]: step for x, step in map_.terms if x.size > 1}) for map_ in out]
    offset, stride = 0, 1
    columns: dict[int, int] = {}
    for map_, size in zip(reversed(wrt), reversed(in_shape), strict=True):
        offset += stride * map_.offset
        for label, step in map_.terms:
            if label.size > 1:
                columns[dims[label]] = columns.get(dims[label], 0) + stride * step
        stride *= size
    taken = [dim for _, row in rows for dim in row]
    if len(set(taken)) < len(taken):
        return None
    flips = {dim for _, row in rows for dim, step in row.items() if step < 0}
    flips |= {dim for dim, step in columns.items() if step < 0 and dim not in taken}
    rows = [
        (
            at + sum(step * (over[dim].size - 1) for dim, step in row.items() if dim in flips),
            {dim: abs(step) for dim, step in row.items()},
        )
        for at, row in rows
    ]
    offset += sum(step * (over[dim].size - 1) for dim, step in columns.items() if dim in flips)
    columns = {dim: -step if dim in flips else step for dim, step in columns.items()}
    ranges: list[Range] = []
    steps: list[int] = []
    for (at, row), unit, radix in zip(rows, units, digits, strict=True):
        found = _ranges(at, row, unit, radix, over)
        if found is None:
            return None
        for each in found:
            step = columns.get(each.dim, 0) if each.dim is not None else 0
            offset -= step * each.low
            ranges.append(each)
            steps.append(step)
    rest = [(step, over[dim].size, dim) for dim, step in columns.items() if dim not in taken]
    free = tuple(sorted(rest, reverse=True))
    below = 0
    for step, size, _ in reversed(free):
        if step <= below:
            return None
        below += step * (size - 1)
    return Placed(tuple(ranges), offset, tuple(steps), free, frozenset(flips), len(over))


def _ranges(
    at: int, row: dict[int, int], units: list[int], radix: list[int], over: Sequence[Label]
) -> list[Range] | None:
    """Return the range of each digit, the highest first, of the position ``at + Σ step · label``."""
    by_unit = {step: dim for dim, step in row.items()}
    if len(by_unit) < len(row):
        return None
    found = []
    for k, unit in enumerate(reversed(units)):
        low, at = divmod(at, unit)
        dim = by_unit.get(unit)
        high = low + (1 if dim is None else over[dim].size)
        if high > radix[k]:
            return None
        found.append(Range(low, high, dim))
    return found
