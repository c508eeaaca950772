"""The law of two blocks of which one has windows: a window of windows is a window.

What the local Jacobian's value is read at, windows' positions, is a view of windows of a tensor with zeros at its
margins. Taps that meet are added (`skew`): of the product, or before it, in a matrix of the local Jacobian's value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from torch.nn.functional import pad

from .block import KEPT, Block, is_remembered
from .compose import Law
from .cost import spread_pays
from .maps import (
    Affine,
    InternedMaps,
    Label,
    Map,
    Reading,
    Substitution,
    bare,
    labels_of,
    reading,
    substitute,
)
from .multiply import joint
from .skew import Meeting, spread, spread_over
from .window_positions import BlockMaps, bound, is_sound, met_map, windows_after
from .windowed import Window, Windowed, reach, windows_of


class Inside(NamedTuple):
    """The reading of ones of some ``sizes`` at taps, zero outside, and the labels of a value that is zero there."""

    sizes: tuple[int, ...]
    where: Reading
    on: tuple[Label, ...]


class WindowLaw(NamedTuple):
    """The composition of two blocks of which at least one has windows.

    ``law`` keeps taps that meet apart; where it pays, ``spread`` has them added, by a matrix of the local Jacobian's
    value. Where taps outside of the tensor between the two have to go first, ``inside`` tells the others.
    """

    law: Law
    spread: Law | None
    meetings: tuple[Meeting, ...]
    inside: Inside | None
    windows: tuple[Window, ...]
    is_clean: bool


def window_law(
    block: Block, local: Block, shape: Sequence[int], wrt_shape: Sequence[int]
) -> WindowLaw | None:
    """Return the law of two blocks; None where it is none of windows."""
    if not {type(block), type(local)} <= {Block, Windowed}:
        return None
    left, right = (BlockMaps(each.out, each.wrt, each.on, windows_of(each)) for each in (block, local))
    is_clean = type(block) is not Windowed or block.is_clean
    find = _law if is_remembered(block) and is_remembered(local) else _law.__wrapped__
    return find(left, right, is_clean, tuple(shape), tuple(wrt_shape))


@lru_cache(maxsize=KEPT)
def _law(
    left: BlockMaps, right: BlockMaps, is_clean: bool, shape: tuple[int, ...], wrt_shape: tuple[int, ...]
) -> WindowLaw | None:
    right = _apart(left, right)
    found = bound(left, right, shape)
    if found is None:
        return None
    by, others = found
    made = windows_after(by, left, right)
    if made is None:
        return None
    meetings, after = made
    out, apart = (tuple([substitute(map_, by) for map_ in maps]) for maps in (left.out, right.wrt))
    wrt = tuple([met_map(map_, meetings) for map_ in apart])
    if not is_sound(after, out, wrt):
        return None
    placed = [label for label in by if label not in others]
    reads = [label for label in placed if label in right.on]
    inner = {window.at for window in right.windows}
    moves = any(label not in inner and not _stays(label, right, shape, wrt_shape) for label in placed)
    inside = None
    if not is_clean and (meetings or moves or (reads and not _is_bare(left, reads))):
        inside = _inside(left, shape)
        if inside is not None:
            if not {window.tap for window in left.windows} <= set(left.on):
                return None
            left = left._replace(on=inside.on)
    laws = _laws(left, right, by, others, ProductEnds(out, apart, wrt), meetings)
    if laws is None:
        return None
    still = (is_clean or inside is not None or bool(reads)) and not (meetings or moves or inner)
    return WindowLaw(*laws, meetings, inside, after, still)


def _is_bare(left: BlockMaps, reads: Sequence[Label]) -> bool:
    """Return whether what is read has zeros for all taps outside, and the value is the same for all windows."""
    return len(reads) >= len(left.windows) and not any(window.at in left.on for window in left.windows)


def _apart(left: BlockMaps, right: BlockMaps) -> BlockMaps:
    """Return a local Jacobian with labels of its own, where the block has some of them too."""
    taken = labels_of(left.out + left.wrt)
    new = {label: Label(label.size) for label in labels_of(right.out + right.wrt) if label in taken}
    if not new:
        return right
    by: Substitution = {label: bare(other) for label, other in new.items()}
    out, wrt = (tuple([substitute(map_, by) for map_ in maps]) for maps in (right.out, right.wrt))
    windows = tuple([Window(new.get(at, at), new.get(tap, tap), ranges) for at, tap, ranges in right.windows])
    return BlockMaps(out, wrt, tuple([new.get(label, label) for label in right.on]), windows)


def _stays(label: Label, local: BlockMaps, shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Return whether a label of a local Jacobian is a position of both tensors, over the whole of both."""
    ends = (local.out, shape), (local.wrt, wrt_shape)
    return all((bare(label), label.size) in zip(maps, sizes, strict=True) for maps, sizes in ends)


class ProductEnds(NamedTuple):
    """The maps of a product: of the output, and of the tensor with taps that meet ``apart`` and as one."""

    out: tuple[Map, ...]
    apart: tuple[Map, ...]
    wrt: tuple[Map, ...]


def _inside(left: BlockMaps, shape: Sequence[int]) -> Inside | None:
    """Return how it is read which taps are inside of a tensor; None where all are."""
    taps = {window.tap for window in left.windows}
    sizes: list[int] = []
    by: Substitution = {}
    for map_, size in zip(left.wrt, shape, strict=True):
        if type(map_) is Affine and not taps.isdisjoint(map_.labels):
            low, high = reach(map_)
            if low < 0 or high >= size:
                by[Label(size)] = map_
                sizes.append(size)
    if not by:
        return None
    where = windows_reading(tuple(by), by)
    return Inside(tuple(sizes), where, tuple(dict.fromkeys(left.on + where.on)))


def windows_reading(on: tuple[Label, ...], by: Substitution) -> Reading:
    """Work out how a tensor over labels is read at maps that may lie outside: zeros are put there first."""
    margins: list[int] = []
    over, moved = list(on), dict(by)
    for label in reversed(on):
        before = after = 0
        map_ = by.get(label)
        if type(map_) is Affine and len(map_.terms) > 1:
            low, high = reach(map_)
            before, after = max(-low, 0), max(high - label.size + 1, 0)
            if before or after:
                place = Label(label.size + before + after)
                over[on.index(label)] = place
                moved[place] = Affine(map_.offset + before, map_.terms)
        margins += [before, after]
    found = reading(tuple(over), moved)
    return Reading(((pad, (margins,)), *found.steps), found.on) if any(margins) else found


def _laws(
    block: BlockMaps,
    local: BlockMaps,
    by: Substitution,
    others: Substitution,
    ends: ProductEnds,
    meetings: tuple[Meeting, ...],
) -> tuple[Law, Law | None] | None:
    """Return the law of two values in which what meets stays apart, and the one in which it does not, where it pays."""
    left, right = reading(block.on, others), windows_reading(local.on, by)
    if not all(each.first in left.on and each.second in right.on for each in meetings):
        return None
    kept = labels_of(ends.out + ends.apart)
    ended = [label for map_ in block.wrt + local.out for label in labels_of((substitute(map_, by),))]
    gone = dict.fromkeys([label for label in (*ended, *left.on, *right.on) if label not in kept])
    if any(label.size == 0 for label in (*kept, *gone)):
        return None
    times = prod([label.size for label in gone if label not in left.on and label not in right.on])
    maps = InternedMaps(ends.out), InternedMaps(ends.wrt)

    def law(how: Reading, gone: dict[Label, None]) -> Law:
        order = sorted(kept, key=lambda label: label in how.on and label not in left.on)
        plan = joint(left.on, how.on, gone, order)
        return Law(*maps, left, how, plan, times, frozenset(gone), True, by, {})

    if not meetings or any(each.first in right.on for each in meetings):
        return law(right, gone), None
    laid_out = Reading((*right.steps, (spread, (right.on, meetings))), spread_over(right.on, meetings))
    taken = gone | dict.fromkeys([each.first for each in meetings])
    first, second = law(right, gone), law(laid_out, taken)
    terms = prod([label.size for label in first.joint.on])
    sums = prod([label.size for label in dict.fromkeys(left.on + laid_out.on)])
    return first, second if spread_pays(terms, sums) else None
