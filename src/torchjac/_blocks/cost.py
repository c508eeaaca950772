"""The cost rules of the engine, all in one place, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .block import Block, entries, stored
from .maps import Gather

#: Every block costs some tens of microseconds of Python at every later node, whatever its size; past this
#: many, one list of coordinates is cheaper to carry.
MOST_BLOCKS = 48


def densifies(blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int]) -> bool:
    """Whether the blocks hold more numbers than the dense Jacobian would: then structure only costs."""
    return sum(map(stored, blocks)) > prod(out_shape) * prod(wrt_shape)


def coalesces(blocks: list[Block]) -> bool:
    """Whether the list has grown so long that coordinates are the cheaper form."""
    return len(blocks) > MOST_BLOCKS


def seeds_pay(blocks: list[Block], seeds: int, rows: int) -> bool:
    """Whether pushing each block's own seeds through a node takes fewer calls than all dense rows."""
    return seeds < rows


def is_scattered(block: Block) -> bool:
    """Whether a block's entries stand where an index tensor says."""
    return any(type(map_) is Gather for map_ in block.out + block.wrt) and entries(block) > 0
