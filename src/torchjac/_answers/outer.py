"""Blocks that are full because each output meets a sum: apart they are two, by what both ends share.

A value that depends on one end alone, v[a] for all a and b, names |a| · |b| entries. U[a, c] = v[a] and V[c, b] = 1
name |a| + |b| of them, with c the labels of both ends, and J = S + U V with what other blocks leave in S.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor

from .._blocks.block import Block, Zeroed, entries
from .._blocks.maps import Affine, Label, labels_of
from .forms import SumOfBlocks

#: A block is taken apart where it has more than this many times the entries of its two parts.
WORTH = 4


class Outer(NamedTuple):
    """``rest + left @ right``, three sums of blocks."""

    rest: SumOfBlocks
    left: SumOfBlocks
    right: SumOfBlocks

    @property
    def named(self) -> int:
        """The entries that their blocks name, and the numbers between left and right."""
        return prod(self.right.out_shape) + sum(sum(map(entries, each.blocks)) for each in self)


def outer(form: SumOfBlocks) -> Outer | None:
    """Return a sum of blocks with those apart that are; None where no block is."""
    rest, left, right = [], [], []
    between = 0
    for block in form.blocks:
        shared = _shared(block)
        if shared is None:
            rest.append(block)
            continue
        above, below, size = _apart(block, shared, between)
        left.append(above)
        right.append(below)
        between += size
    if not left:
        return None
    ends = form.dtype, form.device
    return Outer(
        SumOfBlocks(form.out_shape, form.in_shape, *ends, tuple(rest)),
        SumOfBlocks(form.out_shape, (between,), *ends, tuple(left)),
        SumOfBlocks((between,), form.in_shape, *ends, tuple(right)),
    )


def _shared(block: Block) -> list[Label] | None:
    """Return the labels of both ends, if the value depends on one end alone and the block is worth two."""
    if type(block) is Zeroed and block.domain:
        return None
    rows, columns = labels_of(block.out), labels_of(block.wrt)
    shared = [label for label in rows if label in columns]
    if not (set(block.on) <= set(rows) or set(block.on) <= set(columns)):
        return None
    parts = prod(label.size for label in rows) + prod(label.size for label in columns)
    return shared if entries(block) > WORTH * parts else None


def _apart(block: Block, shared: Sequence[Label], begin: int) -> tuple[Block, Block, int]:
    """Return a block as two, and the numbers between them, the first of which has some place."""
    size, terms = 1, []
    for label in reversed(shared):
        terms.append((label, size))
        size *= label.size
    between = Affine(begin, tuple([term for term in terms if term[0].size > 1]))
    on_left = not isinstance(block.value, Tensor) or set(block.on) <= set(labels_of(block.out))
    value, plain = (block.value, block.on), (1.0, ())
    above, below = (value, plain) if on_left else (plain, value)
    return Block(*above, block.out, (between,)), Block(*below, (between,), block.wrt), size
