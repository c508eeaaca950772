"""A sum of blocks as a matrix by rows: where each row begins, and the column and the value of each nonzero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .._blocks.block import Block, TensorOptions
from .._blocks.block_views import swapped
from .._blocks.coordinates import coordinates
from .._blocks.domain import inside
from .._blocks.pattern import Held, Pattern
from .._blocks.pattern_cache import pattern_of
from .diagonals import Layout, on_diagonals

T = TypeVar("T")


def not_held() -> None:
    """Stand for the numbers of blocks where they are in another order than any pattern knows."""


def not_laid(_: Layout) -> None:
    """Stand for the diagonals of blocks that are not known."""


class Assembled(NamedTuple):
    """A sum of blocks by rows: where each row begins, the column and row of each nonzero, and what fills in its value.

    ``pattern`` is what they were made by, where that is kept; its tensors must not be handed out. ``finish`` makes the
    values of those of the pattern, where it has others; ``held`` are the numbers of the ``blocks`` as they stand there,
    ``laid`` those of the diagonals.
    """

    begin: Tensor
    column: Tensor
    row: Callable[[], Tensor]
    fill: Callable[[], Tensor]
    size: tuple[int, int]
    pattern: Pattern | None
    finish: Callable[[Tensor], Tensor] = lambda values: values
    held: Callable[[], Held | None] = not_held
    laid: Callable[[Layout], Tensor | None] = not_laid
    blocks: Sequence[Block] = ()

    @property
    def values(self) -> Tensor:
        """The values of the nonzeros, filled in now."""
        return self.finish(self.fill())

    def note(self, name: Any, make: Callable[[], T]) -> T:
        """Return what was worked out from the pattern before, or is now."""
        return make() if self.pattern is None else self.pattern.notes.find(name, make)

    def handed_out(self, kept: Tensor, dtype: torch.dtype) -> Tensor:
        """Return an index tensor of some dtype that the caller may write into."""
        return kept.to(dtype, copy=self.pattern is not None)


class Made(NamedTuple):
    """The dtype and device of a form, without the form, which keeps what is assembled of it."""

    dtype: torch.dtype
    device: torch.device


def assemble(
    blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...], like: TensorOptions
) -> Assembled:
    """Return the sum of blocks by rows, its entries sorted and each named once.

    Raises:
        RuntimeError: on the meta device where several blocks may name the same entry.
    """
    rows, columns = prod(out_shape), prod(in_shape)
    blocks = inside(blocks, like.device)
    if like.device.type == "meta" and len(blocks) > 1:
        raise RuntimeError(
            "where the entries of a Jacobian on the meta device stand cannot be told one by one, as its blocks "
            "may name the same entry, which only positions with values tell; take the Jacobian on a real device"
        )
    pattern = pattern_of(blocks, out_shape, in_shape, like.device)
    if pattern is not None:
        like = Made(like.dtype, like.device)
        return Assembled(
            pattern.begin,
            pattern.index,
            lambda: pattern.row,
            lambda: pattern.fill(blocks, like),
            (rows, columns),
            pattern,
            held=lambda: pattern.held(blocks, like),
            laid=lambda layout: on_diagonals(pattern, blocks, like, layout),
            blocks=blocks,
        )
    at, values = coordinates(blocks, (*out_shape, *in_shape), like)
    row, column = split(at, columns)
    return Assembled(pointers(row, rows), column, lambda: row, lambda: values, (rows, columns), None)


def by_layout(
    blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...], layout: torch.layout
) -> tuple[Sequence[Block], tuple[int, ...], tuple[int, ...]]:
    """Return the blocks and shapes of what is assembled by rows: for CSC the transposed matrix."""
    if layout is torch.sparse_csc:
        return [swapped(block) for block in blocks], in_shape, out_shape
    return blocks, out_shape, in_shape


def split(at: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Return positions in the flattened matrix as rows and columns."""
    return at // max(columns, 1), at % max(columns, 1)


def pointers(row: Tensor, rows: int) -> Tensor:
    """Return where each row begins in a sorted list of rows, and where the last one ends."""
    return torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
