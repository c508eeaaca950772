"""Rows of a Jacobian that are nearly full, apart from the others: of JᵀWJ they make n² numbers of a few n."""

from __future__ import annotations

from math import prod

from .._blocks.block import Block, labels
from .._blocks.domain import least
from .._blocks.maps import Affine, Map, labels_of
from .forms import SumOfBlocks

#: Rows with fewer entries are multiplied out.
WIDE = 1000

#: The numbers of the product are this many times those of the rows, had they an entry in each column.
WORTH = 4


def full_rows(form: SumOfBlocks) -> tuple[SumOfBlocks, SumOfBlocks, slice] | None:
    """Return the other rows, the full ones by themselves, and which these are of the first dim.

    None where there are none, or none of their own, or others' places are told by tables.
    """
    blocks = [block for block in form.blocks if all(label.size for label in labels(block))]
    widths = [_width(block) for block in blocks]
    if len(blocks) < 2 or not form.out_shape or max(widths) < WIDE:
        return None
    ranges = [_range(block.out[0]) for block in blocks]
    wide = [each for each, width in zip(ranges, widths, strict=True) if width >= WIDE]
    if None in ranges:
        return None
    low, high = min(each[0] for each in wide if each), max(each[1] for each in wide if each)
    rows = (high - low) * prod(form.out_shape[1:])
    if WORTH * rows * prod(form.in_shape) > max(widths) ** 2:
        return None
    inside, outside = [], []
    for block, found in zip(blocks, ranges, strict=True):
        assert found is not None
        if found[1] <= low or high <= found[0]:
            outside.append(block)
        elif low <= found[0] and found[1] <= high:
            inside.append(block._replace(out=(_moved(block.out[0], -low), *block.out[1:])))
        else:
            return None
    if not outside:
        return None
    ends = form.in_shape, form.dtype, form.device
    full = SumOfBlocks((high - low, *form.out_shape[1:]), *ends, tuple(inside))
    return SumOfBlocks(form.out_shape, *ends, tuple(outside)), full, slice(low, high)


def _width(block: Block) -> int:
    """Return the number of entries in a row."""
    rows = labels_of(block.out)
    return prod(label.size for label in labels_of(block.wrt) if label not in rows)


def _range(map_: Map) -> tuple[int, int] | None:
    """Return the first position and the one after the last; None where a table tells them."""
    if type(map_) is not Affine:
        return None
    low = least(map_)
    return low, low + sum(abs(step) * (label.size - 1) for label, step in map_.terms) + 1


def _moved(map_: Map, by: int) -> Map:
    return map_._replace(offset=map_.offset + by) if type(map_) is Affine else map_
