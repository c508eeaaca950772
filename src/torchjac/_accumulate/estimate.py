"""What each order of multiplication costs, estimated from the shapes on a tape: no value is looked at.

The local Jacobians can be multiplied from the outputs down (reverse), from the inputs up (forward), or from both
ends to a cut: a place in the walking order, with the tensors alive there, its frontier. Then

    ∂out/∂in = Σ_t (∂out/∂t) (∂t/∂in)      over the tensors t of the frontier.

Entries of a Jacobian are counted by the links of the ops on the way, and never more than all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch.autograd.function import BackwardCFunction

from .._blocks.cost import PRODUCT_RATE
from .._capture.tape import Edge, Node, Tape, size_of
from .._rules.links import is_multiplied, links, mixes_nothing


class Place(NamedTuple):
    """A place in the walking order, and what an order that turns there costs.

    Attributes:
        at: how many nodes lie above; all of them is reverse order, none is forward order.
        work: numbers written on the way, and those multiplied at the rate of `PRODUCT_RATE`.
        held: the entries of both factors.
        splits: whether a tape can begin there: at first outputs of nodes.
        product: the part of the work that multiplies the two factors and writes the answer.
    """

    at: int
    work: float
    held: float
    splits: bool
    product: float = 0.0


#: Which input of a matrix product is its second factor
SECOND = {"MmBackward0": 1, "MvBackward0": 1, "AddmmBackward0": 2, "AddmvBackward0": 2}


def places(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> list[Place]:
    """Every place of a tape, from above its first node to below its last; no tensor on it may be empty."""
    nodes = tape.nodes
    batch = _batch(tape, out_shapes)
    rows = sum(map(prod, out_shapes)) / batch
    columns = sum([node.numbers for node in tape.inputs]) / batch
    each = [_linked(node) for node in nodes]
    below, rising = _rise(tape, each, columns)
    # What begins with an identity at the frontier costs these for each of its numbers.
    load = [0.0]
    sizes = [node.numbers for node in nodes]
    for own, linked in zip(sizes, each, strict=True):
        load.append(load[-1] + own + PRODUCT_RATE * sum([count for _, _, count in linked]))
    frontier = _Frontier(below, rows)
    for end, shape in zip(tape.outputs, out_shapes, strict=True):
        if end is not None:
            frontier.add(end, prod(shape), prod(shape))
    found, falling, whole = [], 0.0, load[-1]
    for at, node in enumerate(nodes):
        if at == 0:
            found.append(Place(0, rising[0], frontier.held, not frontier.others))
        else:
            own = frontier.numbers / batch
            work = min(falling, own * load[at]) + min(rising[at], own * (whole - load[at]))
            product = PRODUCT_RATE * frontier.product
            found.append(Place(at, work, frontier.held, not frontier.others, product))
        rate = frontier.take(node) / sizes[at]
        for edge, size, count in each[at]:
            falling += PRODUCT_RATE * count * rate + frontier.add(edge, size, count * rate)
    found.append(Place(len(nodes), falling, frontier.held, True))
    answer = frontier.held - columns * batch
    for at in range(1, len(nodes)):
        product = found[at].product + answer
        found[at] = found[at]._replace(work=found[at].work + product, product=product)
    return found


def narrowest(tape: Tape) -> int:
    """The least size of what is alive together at a place of a tape between its ends."""
    seen = {end for end in tape.outputs if end is not None}
    width = sum([size_of(edge) for edge in seen])
    least = sum([node.numbers for node in (*tape.nodes, *tape.inputs)])
    for node in tape.nodes:
        for slot in range(len(node.outputs)):
            if (node, slot) in seen:
                width -= size_of((node, slot))
        for edge in node.inputs:
            if edge is not None and edge not in seen:
                seen.add(edge)
                width += size_of(edge)
        if width < least:
            least = width
    return least


def reverse_work(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> float:
    """The work of reverse order alone, as the last of `places` has it."""
    return _down(tape, out_shapes)[0]


def spared_work(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> float:
    """How much less work reverse order is than to pull dense rows through the whole tape."""
    return _down(tape, out_shapes)[1]


def _down(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The work of a walk from the outputs down, and how much of it dense rows would take beside.

    What mixes along some dims, or has no rule, is called on rows either way, and for less than its links tell.
    """
    all_rows = sum(map(prod, out_shapes))
    rows = all_rows / _batch(tape, out_shapes)
    entries: dict[Edge, float] = {}
    for end, shape in zip(tape.outputs, out_shapes, strict=True):
        if end is not None:
            entries[end] = entries.get(end, 0.0) + prod(shape)
    work, spared = 0.0, float(all_rows) * all_rows
    for node in tape.nodes:
        if len(node.outputs) == 1:
            arrived = entries.get((node, 0), 0.0)
        else:
            arrived = sum([entries.get((node, slot), 0.0) for slot in range(len(node.outputs))])
        rate = arrived / node.numbers
        multiplies = is_multiplied(node.name)
        for edge, size, count in _linked(node):
            before = entries.get(edge)
            if before is None:
                before = 0.0
                spared += all_rows * size
            entries[edge] = after = min(before + count * rate, size * rows)
            work += PRODUCT_RATE * count * rate + after - before
            spared -= after - before
            if multiplies:
                spared += PRODUCT_RATE * count * (all_rows - rate)
    return work, spared


def _linked(node: Node) -> list[tuple[Edge, int, int]]:
    """The tensors a node reads, with their sizes and the links to them."""
    plain, own = mixes_nothing(node.name), node.numbers
    found = []
    for k, edge in enumerate(node.inputs):
        if edge is not None:
            size = size_of(edge)
            found.append((edge, size, max(own, size) if plain else links(node, k)))
    return found


def _rise(
    tape: Tape, each: Sequence[Sequence[tuple[Edge, int, int]]], columns: float
) -> tuple[dict[Edge, float], list[float]]:
    """The entries of each tensor's Jacobian, and the work of the forward walk up from the bottom to each place."""
    entries: dict[Edge, float] = {(node, 0): float(node.numbers) for node in tape.inputs}
    work = [0.0]
    for node, linked in zip(reversed(tape.nodes), reversed(each), strict=True):
        arrived = written = 0.0
        for edge, size, count in linked:
            arrived += count * entries[edge] / size
        first = size_of((node, 0))
        for slot in range(len(node.outputs)):
            size = size_of((node, slot))
            entries[node, slot] = got = min(arrived * size / first, size * columns)
            written += got
        if isinstance(node.fn, BackwardCFunction):  # called on every row of its own
            written += sum([count for _, _, count in linked])
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

    def add(self, edge: Edge, size: int, entries: float) -> float:
        """Send entries to a tensor; gives how many there are more, for none stands there twice."""
        below, before = self.below[edge], self.alive.get(edge)
        if before is None:
            before = 0.0
            self.numbers += size
            self.held += below
            self.others += edge[1] != 0
        after = self.alive[edge] = min(before + entries, size * self.rows)
        more = after - before
        self.held += more
        self.product += more * below / size
        return more

    def take(self, node: Node) -> float:
        """Take what was sent to a node's outputs off the frontier."""
        total = 0.0
        for slot in range(len(node.outputs)):
            edge = (node, slot)
            entries = self.alive.pop(edge, None)
            if entries is not None:
                size, below = size_of(edge), self.below[edge]
                self.numbers -= size
                self.held -= entries + below
                self.product -= entries * below / size
                self.others -= slot != 0
                total += entries
        return total


def _batch(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> int:
    """The size of the first dim if all tensors share it, as the samples of a batch, and 1 otherwise."""
    shapes = [*out_shapes, *(node.shape for node in (*tape.inputs, *tape.nodes))]
    size = next((shape[0] for shape in shapes if len(shape) > 1), 1)
    if not all(shape and shape[0] == size for shape in shapes):
        return 1
    # The second factor of a matrix product is summed along its first dim: that is no batch.
    return (
        1
        if any(k is not None and node.needs(k) for node in tape.nodes for k in [SECOND.get(node.name)])
        else size
    )
