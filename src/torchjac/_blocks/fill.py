"""The values of blocks written among the nonzeros of a matrix by rows, box by box.

Blocks that stand side by side in a row write into the same lines of memory, so a box is filled a part at a time, while
its lines are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .block import Block
from .maps import Label, align

#: Entries of a box that are written at once: 4 MB of doubles.
ENTRIES_AT_ONCE = 1 << 19

#: Entries of a box from which numbers that are the same in each row are written with one call.
MANY = 1 << 12


class BoxPiece(NamedTuple):
    """The part of a block in one box: where it is read and the window of the nonzeros where it is written.

    ``reads`` tells start, size and whether to flip for each label of the block, ``steps`` how far apart neighbours
    along it are written, ``along`` the label of each digit of the rows, if any; ``columns`` are the first column
    and a step for each label.
    """

    block: int
    reads: tuple[tuple[int, int, bool], ...]
    steps: tuple[int, ...]
    offset: int
    along: tuple[int | None, ...]
    columns: tuple[int, tuple[int, ...]]

    def part(self, digit: int, low: int, high: int) -> BoxPiece:
        """Return the part at some positions of a digit."""
        dim = self.along[digit]
        assert dim is not None
        start, size, flip = self.reads[dim]
        reads, (first, steps) = list(self.reads), self.columns
        reads[dim] = (start + (size - high if flip else low), high - low, flip)
        return self._replace(
            reads=tuple(reads),
            offset=self.offset + low * self.steps[dim],
            columns=(first + low * steps[dim], steps),
        )


class Box(NamedTuple):
    """Rows that have the same entries: where the first begins, how many there are and how far apart along each digit.

    The pieces of a group share their columns: the first holds them all, the others are added to it.
    """

    begin: int
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    width: int
    groups: list[list[BoxPiece]]

    @property
    def entries(self) -> int:
        """The number of nonzeros."""
        return self.width * prod(self.sizes)

    def parts(self, most: int) -> list[Box]:
        """Return the same rows in boxes of at most ``most`` nonzeros, or of one row, in the order of memory."""
        digit = next((g for g, size in enumerate(self.sizes) if size > 1), None)
        if digit is None or self.entries <= most:
            return [self]
        size = self.sizes[digit]
        step = max(1, most * size // self.entries)
        ranges = [(low, min(low + step, size)) for low in range(0, size, step)]
        return [part for low, high in ranges for part in self._part(digit, low, high).parts(most)]

    def _part(self, digit: int, low: int, high: int) -> Box:
        sizes = (*self.sizes[:digit], high - low, *self.sizes[digit + 1 :])
        groups = [[piece.part(digit, low, high) for piece in group] for group in self.groups]
        return self._replace(begin=self.begin + low * self.steps[digit], sizes=sizes, groups=groups)


def aligned(block: Block, over: tuple[Label, ...], like: Tensor) -> Tensor | float:
    """Return the value of a block with a dim for each label, of size 1 where it does not depend on it, or a number."""
    value = block.value
    return align(value.detach(), block.on, over).to(like.dtype) if isinstance(value, Tensor) else value


def read(value: Tensor, piece: BoxPiece) -> Tensor:
    """Return the part of an aligned value that a piece writes."""
    for dim, (start, size, flip) in enumerate(piece.reads):
        if value.shape[dim] == 1:
            continue
        if size != value.shape[dim]:
            value = value.narrow(dim, start, size)
        if flip:
            value = value.flip(dim)
    return value


def window(flat: Tensor, piece: BoxPiece) -> Tensor:
    """Return what a piece writes, of all nonzeros."""
    sizes = [size for _, size, _ in piece.reads]
    return flat.as_strided(sizes, piece.steps, flat.storage_offset() + piece.offset)


class Target(NamedTuple):
    """The entries that a group is written on, those of its first piece; pieces on all of them, and on some."""

    first: BoxPiece
    sizes: list[int]
    here: list[BoxPiece]
    rest: list[BoxPiece]


def target(group: list[BoxPiece]) -> Target:
    """Return where a group is written."""
    place, sizes = _place(group[0]), [size for _, size, _ in group[0].reads]
    here = [piece for piece in group if _place(piece) == place]
    return Target(group[0], sizes, here, [piece for piece in group if _place(piece) != place])


def _place(piece: BoxPiece) -> tuple[int, list[tuple[int, int]]]:
    """Return where a piece is written, the same for all that write on the same entries in one order."""
    return piece.offset, [
        (size, step) for (_, size, _), step in zip(piece.reads, piece.steps, strict=True) if size > 1
    ]


#: A box, and its parts with the targets of their groups.
Parts: TypeAlias = tuple[Box, list[tuple[Box, list[Target]]]]


def in_parts(box: Box, most: int) -> Parts:
    """Return a box with parts of at most ``most`` entries."""
    return box, [(part, list(map(target, part.groups))) for part in box.parts(most)]


def write(flat: Tensor, boxes: Iterable[Parts], values: Sequence[Tensor | float]) -> None:
    """Write values, one for each block, into boxes."""
    numbers = not all(isinstance(value, Tensor) for value in values)
    for box, parts in boxes:
        same: set[int] = set()
        if numbers and box.entries > MANY:
            same = {
                number for number, group in enumerate(box.groups) if _is_same_in_each_row(group, box, values)
            }
        row = None
        if len(same) > 1:
            row = flat.new_zeros(box.width)
            for number in same:
                for piece in box.groups[number]:
                    _in_first_row(row, piece, box).add_(values[piece.block])
        for part, targets in parts:
            if row is not None:
                sizes, steps = (*part.sizes, box.width), (*box.steps, 1)
                flat.as_strided(sizes, steps, flat.storage_offset() + part.begin).copy_(row)
            for number, each in enumerate(targets):
                if row is None or number not in same:
                    _write_target(flat, each, values)


def _write_target(flat: Tensor, target: Target, values: Sequence[Tensor | float]) -> None:
    """Write the sum of the pieces of a group: what stands on all of its entries in as few passes as can be."""
    first, sizes, here, rest = target
    whole = flat.as_strided(sizes, first.steps, flat.storage_offset() + first.offset)
    number, tensors = 0.0, []
    for piece in here:
        value = values[piece.block]
        if isinstance(value, Tensor):
            part = read(value, piece).expand([size for _, size, _ in piece.reads])
            tensors.append(
                part if list(part.shape) == sizes else part.reshape(sizes)
            )  # dims of size 1 lie elsewhere
        else:
            number += value
    if not tensors:
        whole.fill_(number)
    elif number or len(tensors) > 1:
        torch.add(tensors[0], number or tensors.pop(), out=whole)
    else:
        whole.copy_(tensors[0])
    for tensor in tensors[1:]:
        whole.add_(tensor)
    for piece in rest:
        value = values[piece.block]
        window(flat, piece).add_(read(value, piece) if isinstance(value, Tensor) else value)


def _is_same_in_each_row(group: list[BoxPiece], box: Box, values: Sequence[Tensor | float]) -> bool:
    """Return whether pieces are numbers that stand on the same entries of each row."""
    return all(
        not isinstance(values[piece.block], Tensor)
        and all(
            dim is None or size == 1 or piece.steps[dim] == step
            for dim, size, step in zip(piece.along, box.sizes, box.steps, strict=True)
        )
        for piece in group
    )


def _in_first_row(row: Tensor, piece: BoxPiece, box: Box) -> Tensor:
    """Return what a piece writes of the first row of a box."""
    free = [dim for dim in range(len(piece.steps)) if dim not in piece.along]
    sizes, steps = [piece.reads[dim][1] for dim in free], [piece.steps[dim] for dim in free]
    return row.as_strided(sizes, steps, piece.offset - box.begin)
