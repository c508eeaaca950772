"""Windowed blocks: all taps of a window in one block, as those of a convolution's kernel are.

A tap is a label of its own: tap t of window o stands at the position ``stride · o + dilation · t + offset``. Near the
margins that is outside of the tensor: there a windowed block has no entry, whatever its value holds. It is a block for
the walk from the outputs down alone, which composes it with all taps of the next window at once; for all others `taps`
gives a block for each tap, over the windows that have it, whose value is a view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from torch import Tensor

from .block import KEPT, Block, is_remembered, labels
from .maps import (
    Affine,
    InternedMaps,
    Label,
    Map,
    Reading,
    Substitution,
    bare,
    constant,
    read,
    reading,
    substitute,
)
from .merge import merge_values
from .write_traced import write_traced


class Window(NamedTuple):
    """The taps along one dim: the label of the windows, that of the taps, and for each tap which windows have it.

    ``ranges`` holds the first window and the one after the last, for each tap; (0, 0) where none has it.
    """

    at: Label
    tap: Label
    ranges: tuple[tuple[int, int], ...]

    @property
    def is_full(self) -> bool:
        """The test that each window has all taps."""
        return all(found == (0, self.at.size) for found in self.ranges)


class Windowed(Block):
    """A block of all taps.

    Attributes:
        windows: along the dims of the tensor that have any.
        is_clean: whether its value is zero where a tap is outside of the tensor.
    """

    windows: tuple[Window, ...] = ()
    is_clean: bool = False

    def _replace(self, **changes: Any) -> Windowed:
        """Return the block with another value, or moved."""
        return windowed(Block(*self)._replace(**changes), self.windows, self.is_clean)


def windowed(block: Block, windows: tuple[Window, ...], is_clean: bool) -> Windowed:
    """Return a block with its windows; clean it is where no tap is outside, too."""
    made = Windowed(*block)
    made.windows, made.is_clean = windows, is_clean or all(window.is_full for window in windows)
    return made


def windows_of(block: Block) -> tuple[Window, ...]:
    """Return the windows of a block; none of any other."""
    return block.windows if type(block) is Windowed else ()


def plain(blocks: Sequence[Block]) -> list[Block]:
    """Return the same sum without windows: of each windowed block one for each tap."""
    return [each for block in blocks for each in (taps(block) if type(block) is Windowed else [block])]


def taps(block: Windowed) -> list[Block]:
    """Return a block for each tap, over the windows that have it."""
    value = block.value
    return [
        Block(read(how, value) if isinstance(value, Tensor) else value, how.on, out, wrt)
        for how, out, wrt in _found(block)
    ]


def tap_laws(blocks: Sequence[Block]) -> list[Block]:
    """Return `plain` blocks for those who ask for their maps and labels alone: values of taps are not read."""
    found: list[Block] = []
    for block in blocks:
        if type(block) is Windowed:
            found += [Block(1.0, how.on, out, wrt) for how, out, wrt in _found(block)]
        else:
            found.append(block)
    return found


def _found(block: Windowed) -> Sequence[tuple[Reading, tuple[Map, ...], tuple[Map, ...]]]:
    find = _taps if is_remembered(block) else _taps.__wrapped__
    return find(block.out, block.wrt, block.on, block.windows)


def banded(block: Windowed, wrt_shape: Sequence[int]) -> Windowed:
    """Return a windowed block with windows along its first dim alone: along others with each position of the tensor.

    These are written once, into a tensor that has margins for the taps outside, which are cut off.
    """
    first, *others = block.windows
    taps = {window.tap for window in others}
    over = [label for label in labels(block) if label not in taps]
    shape, places, kept = [label.size for label in over], list(map(bare, over)), [slice(None)] * len(over)
    wrt = list(block.wrt)
    for dim, map_ in enumerate(wrt):
        if type(map_) is Affine and not taps.isdisjoint(map_.labels):
            low, high = min(map_.offset, 0), max(reach(map_)[1] + 1, wrt_shape[dim])
            shape.append(high - low)
            places.append(Affine(map_.offset - low, map_.terms))
            kept.append(slice(-low, wrt_shape[dim] - low))
            over.append(Label(wrt_shape[dim]))
            wrt[dim] = bare(over[-1])
    value = block.value
    assert isinstance(value, Tensor)  # taps are labels of it
    moved = Block(value, block.on, tuple(places), ())
    whole = write_traced([moved], tuple(shape), value.dtype, value.device)[tuple(kept)]
    return windowed(Block(whole, tuple(over), block.out, tuple(wrt)), (first,), block.is_clean)


def reach(map_: Affine) -> tuple[int, int]:
    """Return the least and the largest position of a map none of whose strides is negative."""
    return map_.offset, map_.offset + sum([stride * (label.size - 1) for label, stride in map_.terms])


@lru_cache(maxsize=KEPT)
def _taps(
    out: tuple[Map, ...], wrt: tuple[Map, ...], on: tuple[Label, ...], windows: tuple[Window, ...]
) -> Sequence[tuple[Reading, tuple[Map, ...], tuple[Map, ...]]]:
    """Return how the value of each tap is read, and where it stands."""
    found = []
    for each in product(*[list(_along(window)) for window in windows]):
        by = {label: map_ for one in each for label, map_ in one.items()}
        at_out, at_wrt = (InternedMaps([substitute(map_, by) for map_ in maps]) for maps in (out, wrt))
        found.append((reading(on, by), at_out, at_wrt))
    return found


def _along(window: Window) -> Iterator[Substitution]:
    """Yield what takes the place of a window's labels at each tap that some window has."""
    for tap, (low, high) in enumerate(window.ranges):
        if high > low:
            found: Substitution = {window.tap: constant(tap)}
            if (low, high) != (0, window.at.size):
                found[window.at] = Affine(low, ((Label(high - low), 1),))
            yield found


def between(count: int, step: int, offset: int, low: int, high: int) -> tuple[int, int]:
    """Return the first of a count at which ``step · at + offset`` is at least low, and the first where it is high."""
    start, stop = max(-((offset - low) // step), 0), min((high - 1 - offset) // step + 1, count)
    return (start, stop) if start < stop else (0, 0)


def merge_windowed(blocks: Sequence[Windowed]) -> list[Block]:
    """Return the same sum, those of the very same maps as one."""
    same: dict[tuple[object, ...], Windowed] = {}
    for block in blocks:
        place = (id(block.out), id(block.wrt), block.windows)
        other = same.get(place)
        if other is not None:
            value, on = merge_values(other, block.value, block.on)
            block = windowed(
                Block(value, on, block.out, block.wrt), block.windows, block.is_clean and other.is_clean
            )
        same[place] = block
    return list(same.values())
