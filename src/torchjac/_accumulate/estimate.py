"""What each order of multiplication costs, estimated from the shapes on a tape: no value is looked at.

The local Jacobians can be multiplied from the outputs down (reverse), from the inputs up (forward), or from both
ends to a cut: a place in the walking order, with the tensors alive there, its frontier. Then

    ∂out/∂in = Σ_t (∂out/∂t) (∂t/∂in)      over the tensors t of the frontier.

Entries of a Jacobian are counted by the links of the ops on the way, and never more than all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, TypeAlias

from torch.autograd.function import BackwardCFunction

from .._blocks.cost import PRODUCT_RATE
from .._capture.tape import Node, Tape
from .._rules.links import links

Edge: TypeAlias = tuple[Node, int]


class Place(NamedTuple):
    """A place in the walking order, and what an order that turns there costs.

    Attributes:
        at: how many nodes lie above; all of them is reverse order, none is forward order.
        work: numbers written on the way, and those multiplied at the rate of `PRODUCT_RATE`.
        held: the entries of both factors.
        splits: whether a tape can begin there: at first outputs of nodes.
    """

    at: int
    work: float
    held: float
    splits: bool


def places(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> list[Place]:
    """Every place of a tape, from above its first node to below its last; no tensor on it may be empty."""
    nodes = tape.nodes
    batch = _batch(tape, out_shapes)
    rows = sum(map(prod, out_shapes)) / batch
    columns = sum(node.numbers for node in tape.inputs) / batch
    each = [
        [(edge, links(node, k)) for k, edge in enumerate(node.inputs) if edge is not None] for node in nodes
    ]
    below, rising = _rise(tape, each, columns)
    # What begins with an identity at the frontier costs these for each of its numbers.
    load = [0.0]
    for node, edges in zip(nodes, each, strict=True):
        load.append(load[-1] + node.numbers + PRODUCT_RATE * sum([count for _, count in edges]))
    frontier = _Frontier(below, rows)
    for end, shape in zip(tape.outputs, out_shapes, strict=True):
        if end is not None:
            frontier.add(end, prod(shape))
    found, falling = [], 0.0
    for at, node in enumerate(nodes):
        own = frontier.numbers / batch
        work = min(falling, own * load[at]) + min(rising[at], own * (load[-1] - load[at]))
        work += PRODUCT_RATE * frontier.product if at else 0.0
        found.append(Place(at, work, frontier.held, not frontier.others))
        rate = frontier.take(node) / node.numbers
        for edge, count in each[at]:
            falling += PRODUCT_RATE * count * rate + frontier.add(edge, count * rate)
    found.append(Place(len(nodes), falling, frontier.held, True))
    # Multiplied at a cut, the answer itself is yet to be written.
    answer = frontier.held - columns * batch
    return [found[0], *(place._replace(work=place.work + answer) for place in found[1:-1]), *found[-1:]]


def _rise(
    tape: Tape, each: Sequence[Sequence[tuple[Edge, int]]], columns: float
) -> tuple[dict[Edge, float], list[float]]:
    """The entries of each tensor's Jacobian, and the work of the forward walk up from the bottom to each place."""
    entries: dict[Edge, float] = {(node, 0): float(node.numbers) for node in tape.inputs}
    work = [0.0]
    for node, edges in zip(reversed(tape.nodes), reversed(each), strict=True):
        arrived = sum([count * entries[edge] / _size(edge) for edge, count in edges])
        written = 0.0
        for slot, meta in enumerate(node.outputs):
            size = prod(meta.shape)
            got = entries[node, slot] = min(arrived * size / prod(node.shape), size * columns)
            written += got
        if isinstance(node.fn, BackwardCFunction):  # called on every row of its own
            written += sum([count for _, count in edges])
        work.append(work[-1] + PRODUCT_RATE * arrived + written)
    work.reverse()
    return entries, work


class _Frontier:
    """The tensors alive at a place, with the entries that the nodes above have sent to each so far.

    ``numbers`` is their size, ``held`` what both factors hold, ``product`` what multiplying them takes,
    ``others`` how many are not the first output of a node.
    """

    def __init__(self, below: dict[Edge, float], rows: float) -> None:
        self.alive: dict[Edge, float] = {}
        self.below, self.rows = below, rows
        self.numbers = self.held = self.product = 0.0
        self.others = 0

    def add(self, edge: Edge, entries: float) -> float:
        """Send entries to a tensor; gives how many there are more, for none stands there twice."""
        size, before = _size(edge), self.alive.get(edge)
        if before is None:
            before = 0.0
            self.numbers += size
            self.held += self.below[edge]
            self.others += edge[1] != 0
        after = self.alive[edge] = min(before + entries, size * self.rows)
        self.held += after - before
        self.product += (after - before) * self.below[edge] / size
        return after - before

    def take(self, node: Node) -> float:
        """Take what was sent to a node's outputs off the frontier."""
        total = 0.0
        for slot in range(len(node.outputs)):
            edge = (node, slot)
            entries = self.alive.pop(edge, None)
            if entries is not None:
                size = _size(edge)
                self.numbers -= size
                self.held -= entries + self.below[edge]
                self.product -= entries * self.below[edge] / size
                self.others -= slot != 0
                total += entries
        return total


def _size(edge: Edge) -> int:
    node, slot = edge
    return prod(node.outputs[slot].shape)


def _batch(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> int:
    """The size of the first dim if all tensors share it, as the samples of a batch, and 1 otherwise."""
    shapes = [*out_shapes, *(node.shape for node in (*tape.inputs, *tape.nodes))]
    size = next((shape[0] for shape in shapes if len(shape) > 1), 1)
    return size if all(shape and shape[0] == size for shape in shapes) else 1
