"""The blocks of an answer, none with a tensor of the caller's in it: he may write into either."""

from __future__ import annotations

from torch import Tensor

from .._blocks.block import Block
from .._blocks.traced import inside_functorch
from .._capture.capture import memory_of
from .._capture.tape import Tape


def owned(blocks: list[Block], tape: Tape) -> list[Block]:
    """Blocks that a walk of a tape gave, with values copied that its nodes have lent (a matrix f multiplies with)."""
    if inside_functorch():  # its tensors do not tell where they are, and are not written into in place
        return blocks
    lent = {memory_of(tensor) for node in tape.nodes for tensor in node.lent}

    def own(block: Block) -> Block:
        value = block.value
        borrowed = isinstance(value, Tensor) and memory_of(value) in lent
        return block._replace(value=value.clone()) if borrowed else block

    return [own(block) for block in blocks]
