"""Where windows meet: positions of taps take the place of labels of a local Jacobian, which may have taps too.

Where o counts windows and t taps, a position is ``a·o + d·t + e``. A label that it takes the place of stands along one
dim of the local Jacobian's tensor, alone or with taps s of its own; then t and s reach one position together. Whatever
is not of this form has no law of windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd
from typing import NamedTuple

import torch

from .maps import Affine, Label, Map, Substitution, labels_of
from .skew import Meeting
from .unify import CannotJoinError, unify
from .windowed import Window, between


class BlockMaps(NamedTuple):
    """The part of a block that a law looks at: the maps of both ends, the labels of its value, and its windows."""

    out: tuple[Map, ...]
    wrt: tuple[Map, ...]
    on: tuple[Label, ...]
    windows: tuple[Window, ...]


#: Affine maps are matched without a tensor, or not at all
_CPU = torch.device("cpu")


def bound(
    left: BlockMaps, right: BlockMaps, shape: Sequence[int]
) -> tuple[Substitution, Substitution] | None:
    """Return what takes the place of labels where two blocks meet, and the part of it that has to do with no window."""
    taps, inner = {window.tap for window in left.windows}, {window.at for window in right.windows}
    by: Substitution = {}
    rest: list[tuple[Map, Map, int]] = []
    for a, b, size in zip(left.wrt, right.out, shape, strict=True):
        if type(a) is not Affine or type(b) is not Affine:
            return None
        moved, counted = not taps.isdisjoint(a.labels), not inner.isdisjoint(b.labels)
        if not moved and not counted:
            rest.append((a, b, size))
            continue
        if len(b.terms) != 1 or b.terms[0][1] != 1 or b.terms[0][0] in by:
            return None
        if not moved and (len(a.terms) != 1 or a.terms[0][1] < 1):
            return None
        by[b.terms[0][0]] = Affine(a.offset - b.offset, a.terms)
    try:
        others = unify([a for a, _, _ in rest], [b for _, b, _ in rest], [size for _, _, size in rest], _CPU)
    except CannotJoinError:
        return None
    if others is None or any(type(map_) is not Affine for map_ in others.values()):
        return None
    taken = {*labels_of(tuple(by.values())), *by}
    if not taken.isdisjoint([*others, *labels_of(tuple([b for _, b, _ in rest]))]):
        return None
    return {**by, **others}, others


def windows_after(
    by: Substitution, left: BlockMaps, right: BlockMaps
) -> tuple[tuple[Meeting, ...], tuple[Window, ...]] | None:
    """Return the taps that meet, and the windows of a product."""
    own = {window.tap: window for window in left.windows}
    inner = {window.at: window for window in right.windows}
    meetings: list[Meeting] = []
    after: list[Window] = []
    for label, position in by.items():
        window = next((own[other] for other in labels_of((position,)) if other in own), None)
        beyond = inner.get(label)
        if window is None and beyond is None:
            continue
        there = [map_ for map_ in right.wrt if label in labels_of((map_,))]
        if len(there) != 1 or type(there[0]) is not Affine or type(position) is not Affine:
            return None
        strides, steps = dict(there[0].terms), dict(position.terms)
        if len(strides) != 1 + (beyond is not None) or min(strides.values()) < 1:
            return None
        if beyond is None:
            assert window is not None
            limits = [(0, label.size)] * window.tap.size
            after.append(window._replace(ranges=_met_ranges(position, window, limits)))
        elif window is None:
            ((at, step),) = position.terms
            ranges = tuple([between(at.size, step, position.offset, *range_) for range_ in beyond.ranges])
            after.append(Window(at, beyond.tap, ranges))
        else:
            found = _meeting(position, steps, strides, label, window, beyond)
            if found is None:
                return None
            meetings.append(found[0])
            after.append(found[1])
    return tuple(meetings), tuple(after)


def _meeting(
    position: Affine,
    steps: dict[Label, int],
    strides: dict[Label, int],
    label: Label,
    window: Window,
    beyond: Window,
) -> tuple[Meeting, Window] | None:
    """Return how the taps of a window of windows meet, and the windows of both; None where these have gaps."""
    step, other = steps[window.tap] * strides[label], strides[beyond.tap]
    unit = gcd(step, other)
    step, other = step // unit, other // unit
    both = Label(step * (window.tap.size - 1) + other * (beyond.tap.size - 1) + 1)
    reached: dict[int, list[tuple[int, int]]] = {}
    for tap, limits in enumerate(beyond.ranges):
        for first, found in enumerate(_met_ranges(position, window, [limits] * window.tap.size)):
            if found[1] > found[0]:
                reached.setdefault(step * first + other * tap, []).append(found)
    ranges = [(0, 0)] * both.size
    for tap, parts in reached.items():
        (low, high), *others = sorted(parts)
        for start, stop in others:
            if start > high:
                return None
            high = max(high, stop)
        ranges[tap] = low, high
    return Meeting(window.tap, beyond.tap, step, other, both), Window(window.at, both, tuple(ranges))


def _met_ranges(
    position: Affine, window: Window, limits: Iterable[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Return for each tap the windows that have it and whose position is between two limits."""
    steps = dict(position.terms)
    found = []
    for tap, ((low, high), limit) in enumerate(zip(window.ranges, limits, strict=True)):
        offset = position.offset + steps[window.tap] * tap
        start, stop = between(window.at.size, steps[window.at], offset, *limit)
        start, stop = max(low, start), min(high, stop)
        found.append((start, stop) if start < stop else (0, 0))
    return tuple(found)


def met_map(map_: Map, meetings: Iterable[Meeting]) -> Map:
    """Return a map in which the taps that meet are one."""
    for each in meetings:
        if type(map_) is Affine and each.first in map_.labels:
            strides = dict(map_.terms)
            unit = strides.pop(each.first) // each.step
            del strides[each.second]
            map_ = Affine(map_.offset, (*strides.items(), (each.both, unit)))
    return map_


def is_sound(windows: Sequence[Window], out: Sequence[Map], wrt: Sequence[Map]) -> bool:
    """Return whether each window has labels of its own, of which one is in the output too and neither elsewhere."""
    above = labels_of(tuple(out))
    own = [label for window in windows for label in (window.at, window.tap)]
    counted = [label for map_ in wrt for label in labels_of((map_,))]
    return (
        len(set(own)) == len(own)
        and all(counted.count(label) == 1 for label in own)
        and all(window.at in above and window.tap not in above for window in windows)
    )
