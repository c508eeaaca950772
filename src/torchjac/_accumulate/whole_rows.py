"""Rows through a Function that no rule speaks for: its backward is a user's own code, which may clip a gradient.

What it gives for a sum of cotangents need not be the sum of what it gives for each. So it is called on those that the
rows bring and on no others, whole: at all its outputs at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from .._blocks.block import Block
from .._blocks.maps import Affine
from .._blocks.merge import block_of_rows, dense_block, rows_of
from .._capture.tape import Edge, Node
from .._rules.registry import opaque
from .call_rows import call_rows_together
from .report import PendingBlocks
from .seeds import Limits, check_width, push


def push_rows(
    node: Node, above: Sequence[PendingBlocks], limits: Limits
) -> Iterator[tuple[Edge, int, Block]]:
    """Give the blocks of a node's inputs, each with its tensor and the number of its output, of those above it."""
    for output in dict.fromkeys(lot.output for lot in above):
        lots = [lot for lot in above if lot.output == output]
        if len(lots) == 1:
            found = _by_seeds(node, lots[0], limits)
        else:
            found = _together(node, lots, limits)
        for edge, block in found:
            yield edge, output, block


def _by_seeds(node: Node, lot: PendingBlocks, limits: Limits) -> Iterator[tuple[Edge, Block]]:
    """Give the blocks of the inputs by those of one output."""
    blocks = lot.blocks
    if not _are_rows(blocks):
        blocks = [_dense(node, lot, limits)]
    for term in push(node, lot.slot, blocks, lot.out_shape, opaque(node).batch_dims, limits, {}):
        yield node.inputs[term.input], term.block  # type: ignore[misc]  # a needed input


def _are_rows(blocks: Sequence[Block]) -> bool:
    """Return whether each seed of some blocks is all that a row holds, and no part of it."""
    return len(blocks) == 1 and all(type(map_) is Affine and len(map_.terms) < 2 for map_ in blocks[0].out)


def _dense(node: Node, lot: PendingBlocks, limits: Limits) -> Block:
    check_width(node, prod(lot.out_shape), limits)
    return dense_block(lot.blocks, lot.out_shape, lot.wrt_shape, node.outputs[lot.slot])


def _together(node: Node, lots: Sequence[PendingBlocks], limits: Limits) -> Iterator[tuple[Edge, Block]]:
    """Give the blocks of the inputs by those of several outputs."""
    shape, count = lots[0].out_shape, prod(lots[0].out_shape)
    rows = [rows_of(_dense(node, lot, limits), len(shape), count) for lot in lots]
    wanted = opaque(node).batch_dims
    found = call_rows_together(node, [lot.slot for lot in lots], rows, wanted, limits.chunk)
    for k in wanted:
        value = found[k]
        if value is not None:
            yield node.inputs[k], block_of_rows(value, shape, node.into(k).shape)  # type: ignore[misc]  # a needed input
