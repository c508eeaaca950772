"""Windows: the strided views of a flattened dense tensor that blocks with affine maps cover."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import TypeAlias

import numpy

from .block import KEPT, Block, is_remembered, labels
from .maps import Affine, InternedMaps, Label

#: Sizes, strides and offset of a view of the flattened tensor.
Window: TypeAlias = tuple[list[int], list[int], int]

#: Windows with more entries than this in all are not looked at entry by entry.
MANY = 1_000_000


def window_of(block: Block, shape: tuple[int, ...]) -> Window | None:
    """Return the window that a block covers, if it covers each entry of it once."""
    _, _, out, wrt = block
    return _remembered(out, wrt, shape) if is_remembered(block) else _find(block, shape)


@lru_cache(maxsize=KEPT)
def _remembered(out: InternedMaps, wrt: InternedMaps, shape: tuple[int, ...]) -> Window | None:
    return _find(Block(1.0, (), out, wrt), shape)


def _find(block: Block, shape: tuple[int, ...]) -> Window | None:
    place, over = strides(block, shape), labels(block)
    if place is None or not is_injective(place[1], over):
        return None
    offset, step = place
    return [label.size for label in over], [max(step.get(label, 0), 0) for label in over], offset


def strides(block: Block, shape: Sequence[int]) -> tuple[int, dict[Label, int]] | None:
    """Offset and stride of each label in the flattened tensor, if all maps are affine."""
    offset, step = 0, 1
    each: dict[Label, int] = {}
    for map_, size in zip(reversed(block.out + block.wrt), reversed(shape), strict=True):
        if type(map_) is not Affine:
            return None
        offset += step * map_.offset
        for label, stride in map_.terms:
            each[label] = each.get(label, 0) + step * stride
        step *= size
    return offset, each


def is_injective(each: dict[Label, int], over: tuple[Label, ...]) -> bool:
    """Return whether no two values of the labels fall on one entry: each stride passes all below it."""
    reach = 0
    for label in sorted(over, key=lambda label: abs(each.get(label, 0))):
        if label.size <= 1:
            continue
        stride = each.get(label, 0)
        if stride <= reach:  # negative strides, which as_strided lacks, take the general way too
            return False
        reach += stride * (label.size - 1)
    return True


def are_apart(windows: Sequence[Window | None]) -> bool:
    """Return whether no entry is in two windows; where that would take long to tell, or one is missing, no.

    It is asked where a program is recorded, to be run many times.
    """
    found = [window for window in windows if window is not None]
    if len(found) < len(windows) or sum(prod(sizes) for sizes, _, _ in found) > MANY:
        return False
    positions = numpy.concatenate([numpy.zeros(0, int), *map(_positions, found)])
    return numpy.unique(positions).size == positions.size


def _positions(window: Window) -> numpy.ndarray:
    sizes, steps, offset = window
    at = numpy.array(offset)
    for size, step in zip(sizes, steps, strict=True):
        at = at[..., None] + numpy.arange(size) * step
    return at.reshape(-1)
