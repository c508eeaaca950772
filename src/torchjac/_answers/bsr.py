"""A matrix by rows as one of small dense blocks: one for each pair of positions of the first dims that has an entry."""

from __future__ import annotations

from math import prod

from torch import Tensor

from .._blocks.pattern import Pattern
from .._blocks.sort_entries import sorted_places
from .assembly import Assembled, not_held, pointers


def block_size(out_shape: tuple[int, ...], in_shape: tuple[int, ...], what: str) -> tuple[int, int]:
    """Return the height and width of the blocks, which hold all dims but the first.

    Raises:
        ValueError: where there is no first dim, or they have no entries.
    """
    if not out_shape or not in_shape:
        raise ValueError(
            f"{what}: torch.sparse_bsr has a block for each pair of positions of the first dims, got shapes "
            f"{out_shape} and {in_shape}; take torch.sparse_csr"
        )
    height, width = prod(out_shape[1:]), prod(in_shape[1:])
    if height == 0 or width == 0:
        raise ValueError(
            f"{what}: blocks of {height} × {width} have no entries, which sparse_bsr cannot hold"
        )
    return height, width


def blocked(found: Assembled, height: int, width: int) -> Assembled:
    """Return a matrix by rows as one of blocks; where its entries stand in them is kept with the pattern."""

    def stand() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row, column = found.row(), found.column
        place, above, beside = sorted_places(row // height, column // width)
        at = (place * height + row % height) * width + column % width
        return at, pointers(above, found.size[0] // height), above, beside

    at, begin, row, column = found.note(("blocks", height, width), stand)

    def finish(values: Tensor) -> Tensor:
        whole = values.new_zeros(column.numel() * height * width).index_copy(0, at, values)
        return whole.view(column.numel(), height, width)

    return found._replace(begin=begin, column=column, row=lambda: row, finish=finish, held=not_held)


def refill_blocks(blocks: Tensor, pattern: Pattern, values: Tensor) -> None:
    """Write the values of a matrix by rows into the blocks that `blocked` has made of one with the same pattern."""
    at = pattern.notes["blocks", blocks.shape[1], blocks.shape[2]][0]
    blocks.zero_().view(-1).index_copy_(0, at, values)
