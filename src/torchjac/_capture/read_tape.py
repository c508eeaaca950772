"""From the graph of a call to its tape: nodes that lead to a tensor with entries, and reshapes only where they act."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .deletion import MOST_NESTED, Unlinked
from .graph import Graph
from .tape import Edge, Node, Tape


def tape_of(graph: Graph) -> Tape:
    """Return the tape of a graph.

    A tensor without entries depends on nothing and nothing on it, so it is not on the tape: whatever shapes and
    positions its op was given, which PyTorch does not look at either, no rule and no formula is asked.
    """
    first = len(graph.nodes) - len(graph.edges)
    starts = [Node(fn) for fn in graph.nodes[:first]]
    made: list[Node | Edge | None] = [*starts]
    nodes: list[Node] = []
    for fn, places in zip(graph.nodes[first:], graph.edges, strict=True):
        inputs = [None if at is None or at < 0 else _edge(made[at], slot) for at, slot in places]
        node = Node(fn, tuple(inputs))
        if not node.numel or inputs.count(None) == len(inputs):
            made.append(None)
            continue
        made.append((_reshapes(node) and _same_below(node)) or node)
        if made[-1] is node:
            nodes.append(node)
    ends = [None if end is None else _edge(made[end[0]], end[1]) for end in graph.ends]
    inputs_of = {node: number for number, node in enumerate(starts)}
    nodes.reverse()
    if len(nodes) < len(graph.edges):
        nodes = _read_only(nodes, ends)
    return Tape(Unlinked(nodes) if len(nodes) > MOST_NESTED else nodes, ends, inputs_of, graph.foreign)


def _edge(found: Node | Edge | None, slot: int) -> Edge | None:
    if type(found) is Node:
        full = found.numel
        if len(found.outputs) > 1:
            full = prod(found.outputs[slot].shape)
            found.reads_others = found.reads_others or slot > 0
        return (found, slot) if full else None
    return found


#: Ops that keep the order of the entries: where a chain of them has one shape at both ends it does nothing
RESHAPES = {
    "ExpandBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1",
    "SqueezeBackward2", "SqueezeBackward4", "SqueezeBackward5", "UnsafeViewBackward0", "UnsqueezeBackward0",
    "ViewBackward0",
}  # fmt: skip


def _reshapes(node: Node) -> bool:
    return node.name in RESHAPES or (node.name == "PermuteBackward0" and len(node.shape) < 2)


def _same_below(node: Node) -> Edge | None:
    """Return the tensor that a chain of reshapes has come back to: what a batching rule folds it folds out again."""
    (meta,) = node.outputs
    edge = node.inputs[0]
    while edge is not None:
        below, slot = edge
        if below.outputs[slot] == meta:
            return edge
        if not below.inputs or not _reshapes(below) or below.numel != node.numel:  # it expanded
            return None
        edge = below.inputs[0]
    return None


def _read_only(nodes: Sequence[Node], ends: Sequence[Edge | None]) -> list[Node]:
    """Return the nodes without the reshapes that nothing reads any more."""
    read = {end[0] for end in ends if end is not None}
    kept = []
    for node in nodes:
        if node in read or not _reshapes(node):
            kept.append(node)
            read.update([edge[0] for edge in node.inputs if edge is not None])
    return kept
