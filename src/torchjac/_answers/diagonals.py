"""A narrow matrix by its diagonals, as LAPACK has it: written from blocks at once, not through a list of nonzeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .._blocks.block import Block, TensorOptions
from .._blocks.block_views import joined
from .._blocks.dense_views import Window, are_apart, is_injective, strides
from .._blocks.fill import aligned
from .._blocks.maps import Affine, Label, substitute
from .._blocks.pattern import Pattern
from .._blocks.spelling import spell
from .._blocks.zeros import zeros


class Layout(NamedTuple):
    """A number of diagonals and that of the main one: each is a row, or, ``by_column``, a column.

    The entry [r, c] of the matrix stands at [main + r - c, c], or at [c, main + r - c].
    """

    height: int
    main: int
    by_column: bool


def on_diagonals(
    pattern: Pattern, blocks: Sequence[Block], like: TensorOptions, layout: Layout
) -> Tensor | None:
    """Return the diagonals of blocks of a pattern; None where tables tell places, or a block names entries twice."""
    found = pattern.notes.find(("diagonals", layout), lambda: _windows(pattern, blocks, layout))
    if found is None:
        return None
    windows, apart = found
    flat = zeros((pattern.columns * layout.height,), dtype=like.dtype, device=like.device)
    for block, (sizes, steps, offset) in zip(blocks, windows, strict=True):
        value, view = aligned(block, spell(block).over, flat), flat.as_strided(sizes, steps, offset)
        if not apart:
            view.add_(value)
        elif isinstance(value, Tensor):
            view.copy_(value)
        else:
            view.fill_(value)
    return flat.view((-1, layout.height) if layout.by_column else (layout.height, -1))


def _windows(pattern: Pattern, blocks: Sequence[Block], layout: Layout) -> tuple[list[Window], bool] | None:
    """Return where each block is written, its labels in the order of its spelling, and whether none meets another."""
    row, column, size = Label(pattern.rows), Label(pattern.columns), pattern.columns
    which = Affine(layout.main, ((row, 1), (column, -1)))
    shape = (size, layout.height) if layout.by_column else (layout.height, size)
    found: list[Window] = []
    for block in blocks:
        wrt = joined(block.wrt, pattern.in_shape)
        diagonal = substitute(which, {row: joined(block.out, pattern.out_shape), column: wrt})
        maps = (wrt, diagonal) if layout.by_column else (diagonal, wrt)
        window = _window(Block(1.0, (), maps, ()), shape, spell(block).over)
        if window is None:
            return None
        found.append(window)
    return found, are_apart(found)


def _window(block: Block, shape: tuple[int, ...], over: Sequence[Label]) -> Window | None:
    place = strides(block, shape)
    if place is None:
        return None
    sizes, steps = [label.size for label in over], [place[1].get(label, 0) for label in over]
    return (sizes, [max(step, 0) for step in steps], place[0]) if is_injective(sizes, steps) else None
