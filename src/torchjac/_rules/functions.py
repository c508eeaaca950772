"""Python Functions of our own: the dense write of an inner Jacobian keeps its structure for an outer one."""

from __future__ import annotations

from .._blocks.block import Block
from .._blocks.maps import bare
from .._blocks.write import Write, restored
from .._capture.tape import Node
from .registry import Local, rule


@rule(Write, any_dtype=True)
def write(node: Node) -> list[Local]:
    """A dense tensor written from blocks: ∂dense[maps(labels)]/∂value[labels] = 1, for each block."""
    return [
        Local(k, Block(1.0, (), block.out + block.wrt, tuple(map(bare, block.on))))
        for k, block in restored(node.fn)
        if node.needs(k)
    ]
