"""Numbers of a tape that cost rules ask for."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from .._blocks import cost
from .._blocks.tracing import inside_functorch, is_tracing
from .._capture.capture import mapped_over
from .._capture.tape import Node, Tape
from .._plan.price import LAUNCH, NODE, NUMBER, RECORDED
from .._rules.nnz_estimate import is_opaque, links, mixes_nothing, windows
from .._rules.vjp_support import WRONG_TWICE, all_can_vmap
from .progress import is_watched

#: Python's time at both ends of a walk by structure, in nodes
ENDS_NODES = 10


def goes_in_columns(tape: Tape) -> bool:
    """Return whether the graph of a tape's backward formulas is known to be right.

    It is not where an op has no rule or is a Python Function, which may leave PyTorch, nor where it is recorded
    itself: second derivatives of some formulas are wrong.
    """
    names = tape.names
    return (
        not torch.is_grad_enabled()
        and not inside_functorch()
        and names.isdisjoint(WRONG_TWICE)
        and all_can_vmap(names)
        and not any(map(is_opaque, names))
        and not any(node.is_python or node.touches_complex for node in tape.nodes)
    )


def is_small(nodes: Sequence[Node], rows: float) -> bool:
    """Return whether all rows pass an average node faster than a walk by structure does: then that saves nothing."""
    numbers = rows * sum([node.numel for node in nodes]) * mapped_over()
    return NUMBER * numbers <= NODE / 4 * (len(nodes) + ENDS_NODES) * walks_slower()


def walks_slower() -> int:
    """Return how many times longer Python takes at each node: where a graph is recorded, and through functorch."""
    return (RECORDED if torch.is_grad_enabled() else 1) * (3 if inside_functorch() else 1)


def dense_is_cheaper(
    tape: Tape, position: int, blocks: int, out_shapes: Sequence[Sequence[int]], share: int = 1
) -> bool:
    """Return whether dense rows are faster than a number of blocks from a node on, or a ``share`` of these rows.

    Not where the walk is recorded or traced: then structure is worth more than the time of this call.
    """
    if torch.is_grad_enabled() or inside_functorch() or is_tracing():
        return False
    nodes, rows = tape.nodes, sum(map(prod, out_shapes)) / share
    first = rows * _row(nodes[position])
    if not cost.dense_is_cheaper(blocks, 1, 0.0, first):
        return False
    rest = nodes[position:]
    return cost.dense_is_cheaper(blocks, len(rest), first, rows * sum(map(_row, rest)))


def shares_are_cheaper(
    tape: Tape, position: int, blocks: int, out_shapes: Sequence[Sequence[int]], share: int
) -> bool:
    """Return whether one block that is full between shared dims is faster than several, and than all rows.

    Of the rows it takes a share, by one call more at each node.
    """
    rest = tape.nodes[position:]
    rows = sum(map(prod, out_shapes))
    spared = NUMBER * (rows - rows // share) * sum(map(_row, rest))
    return spared > LAUNCH * len(rest) and dense_is_cheaper(tape, position, blocks - 1, out_shapes, share)


def _row(node: Node) -> float:
    """Return what a row through a node takes: the numbers written, and those multiplied where it mixes some."""
    if mixes_nothing(node.name):
        return node.numel
    needed = [k for k in range(len(node.inputs)) if node.needs(k)]
    return node.numel + windows(node) + cost.PRODUCT_RATE * sum([links(node, k) for k in needed])


def rows_at_once(nodes: Sequence[Node], rows: int, through: bool = False) -> int:
    """Return how many rows to push at once at some nodes, or ``through`` one after another.

    They are fewer where someone watches the progress.
    """
    if not nodes:
        return rows
    numbers = [node.numel for node in nodes]
    size = cost.rows_at_once(rows, max(numbers))
    if through and nodes[0].outputs[0].device.type == "cpu" and not is_tracing():  # each piece is compiled
        size = min(size, cost.rows_cached(rows, sum(numbers) / len(numbers), max(numbers)))
    return cost.rows_watched(size, rows, sum(numbers)) if is_watched() else size
