"""The blocks of an answer, none with a tensor of the caller's in it: he may write into either."""

from __future__ import annotations

from torch import Tensor

from .._blocks.block import Block
from .._blocks.tracing import inside_functorch
from .._capture.shared_memory import memory_of
from .._capture.tape import Tape


def all_borrowed(tape: Tape) -> set[int]:
    """Return the memory of what a walk borrows from the nodes of a tape (a matrix f multiplies with)."""
    if inside_functorch():  # its tensors do not tell where they are, and are not written into in place
        return set()
    return {memory_of(tensor) for node in tape.nodes for tensor in node.borrowed}


def owned(blocks: list[Block], borrowed: set[int]) -> list[Block]:
    """Return blocks, with values copied that stand in borrowed memory."""
    if not borrowed:
        return blocks

    def own(block: Block) -> Block:
        value = block.value
        return (
            block._replace(value=value.clone())
            if isinstance(value, Tensor) and memory_of(value) in borrowed
            else block
        )

    return [own(block) for block in blocks]
