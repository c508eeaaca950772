"""Windows: the strided views of a flattened dense tensor that blocks with affine maps cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from operator import itemgetter
from typing import NamedTuple, TypeAlias, TypeVar

import numpy
import torch
from torch import Tensor

from .block import Block, labels, of_maps
from .maps import Affine, Label, Map, positions

#: Sizes, strides and offset of a view of the flattened tensor.
Window: TypeAlias = tuple[list[int], list[int], int]

T = TypeVar("T")

#: Windows with more entries than this in all are not looked at entry by entry.
MANY = 1_000_000


def window_of(block: Block, shape: tuple[int, ...]) -> Window | None:
    """Return the window that a block covers, if it covers each entry of it once."""
    _, _, out, wrt = block
    return _window(out, wrt, shape)


@of_maps
def _window(out: tuple[Map, ...], wrt: tuple[Map, ...], shape: tuple[int, ...]) -> Window | None:
    block = Block(1.0, (), out, wrt)
    place, over = strides(block, shape), labels(block)
    if place is None:
        return None
    sizes, steps = [label.size for label in over], [place[1].get(label, 0) for label in over]
    return (sizes, [max(step, 0) for step in steps], place[0]) if is_injective(sizes, steps) else None


def locate(
    maps: Sequence[Map], over: tuple[Label, ...], shape: Sequence[int], device: torch.device
) -> Tensor:
    """Return the positions of maps in a flattened tensor, to be broadcast over the labels ``over``."""
    at = torch.zeros((1,) * len(over), dtype=torch.int64, device=device)
    for map_, size in zip(maps, shape, strict=True):
        at = at * size + positions(map_, over, device)
    return at


def unravelled(at: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return positions in a flattened tensor as positions along each of its dims."""
    found = []
    for size in reversed(sizes):
        found.append(at % max(size, 1))
        at = at // max(size, 1)
    return found[::-1]


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


def is_injective(sizes: Iterable[int], steps: Iterable[int]) -> bool:
    """Return whether no two entries of a strided part are one: each step passes all that shorter ones reach.

    Negative steps, which as_strided lacks, take the general way too.
    """
    reach = 0
    for step, size in sorted(zip(steps, sizes, strict=True)):
        if size > 1 and step <= reach:
            return False
        reach += step * max(size - 1, 0)
    return True


def stands_for_one(map_: Affine) -> bool:
    """Return whether each position stands for one value of each label, as its digits do."""
    return is_injective([label.size for label in map_.labels], [stride for _, stride in map_.terms])


#: Up to this number of windows are written one by one rather than stacked first.
FEW = 8


class EntryRun(NamedTuple):
    """Entries of the flattened tensor without gaps, and the order of a window's dims in which they follow."""

    start: int
    stop: int
    order: tuple[int, ...]


def run_of(window: Window) -> EntryRun | None:
    """Return the run that a window covers, if there are no gaps in it."""
    sizes, steps, offset = window
    order = sorted(range(len(sizes)), key=lambda dim: -steps[dim] if sizes[dim] > 1 else 0)
    reach = 1
    for dim in reversed(order):
        if sizes[dim] > 1:
            if steps[dim] != reach:
                return None
            reach *= sizes[dim]
    return EntryRun(offset, offset + prod(sizes), tuple(order))


def progressions(
    pieces: Iterable[tuple[Window | None, T]], stack: Callable[[list[T]], T]
) -> Iterator[tuple[Window, T]]:
    """Yield windows with their values; those at equal distances, alike else, as one window with one more dim.

    Only where that is a run of memory or spares many writes: elsewhere the stack is one more copy.
    """
    alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, T]]] = {}
    for window, value in pieces:
        assert window is not None
        sizes, steps, offset = window
        alike.setdefault((tuple(sizes), tuple(steps)), []).append((offset, value))
    for (same_sizes, same_steps), found in alike.items():
        found.sort(key=itemgetter(0))
        apart = {after - before for (before, _), (after, _) in pairwise(found)}
        joined: Window = [len(found), *same_sizes], [*apart, *same_steps], found[0][0]
        if len(apart) == 1 and (len(found) > FEW or run_of(joined)):
            yield joined, stack([value for _, value in found])
        else:
            yield from [((list(same_sizes), list(same_steps), offset), value) for offset, value in found]


def are_apart(windows: Sequence[Window | None]) -> bool:
    """Return whether no entry is in two windows; where that would take long to tell, or one is missing, no.

    It is asked where a program is recorded, to be run many times.
    """
    found = _of_a_sample([window for window in windows if window is not None])
    if len(found) < len(windows) or sum(prod(sizes) for sizes, _, _ in found) > MANY:
        return False
    positions = numpy.concatenate([numpy.zeros(0, int), *map(_positions, found)])
    return numpy.unique(positions).size == positions.size


def _of_a_sample(windows: list[Window]) -> list[Window]:
    """Return windows without the outermost dim, if along it each repeats, as often, a part that others stay out of."""
    step = max([max(steps, default=0) for _, steps, _ in windows], default=0)
    inner, samples = [], set()
    for sizes, steps, offset in windows:
        if step == 0 or step not in steps:
            return windows
        dim, (first, start) = steps.index(step), divmod(offset, step)
        samples.add((first, sizes[dim]))
        own = sizes[:dim] + sizes[dim + 1 :], steps[:dim] + steps[dim + 1 :], start
        reach = sum([each * (size - 1) for size, each in zip(own[0], own[1], strict=True)])
        if len(samples) > 1 or start + reach >= step:
            return windows
        inner.append(own)
    return inner


def _positions(window: Window) -> numpy.ndarray:
    sizes, steps, offset = window
    at = numpy.array(offset)
    for size, step in zip(sizes, steps, strict=True):
        at = at[..., None] + numpy.arange(size) * step
    return at.reshape(-1)
