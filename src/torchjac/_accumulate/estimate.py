"""The cost of each order of multiplication, estimated from the shapes on a tape: no value is looked at.

The local Jacobians can be multiplied from the outputs down (reverse), from the inputs up (forward), or from both
ends to a cut: a place in the walking order, with the tensors alive there, its frontier. Then

    ∂out/∂in = Σ_t (∂out/∂t) (∂t/∂in)      over the tensors t of the frontier.

Entries of a Jacobian are counted by the links of the ops on the way, and never more than all of them. What comes to
a tensor on several ways is added up, unless it came from one tensor by pointwise ops alone: then it stands at the
same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch.autograd.function import BackwardCFunction

from .._blocks.cost import CALLED_RATE, MOST_BLOCKS, PRODUCT_RATE
from .._capture.tape import Edge, Node, Tape, size_of
from .._rules.nnz_estimate import (
    is_called,
    is_multiplied,
    is_pointwise,
    kind_of,
    links,
    mixes_nothing,
    windows,
)
from .batch import Samples, samples_of


class TurningPoint(NamedTuple):
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


def places(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> list[TurningPoint]:
    """Return every place of a tape, from above its first node to below its last; no tensor on it may be empty."""
    nodes = tape.nodes
    samples = samples_of(tape, out_shapes)
    rows = sum(map(prod, out_shapes))
    each = [_linked(node) for node in nodes]
    below, rising = _rise(tape, each, samples)
    # What begins with an identity at the frontier costs these for each of its numbers.
    load = [0.0]
    sizes = [node.numel for node in nodes]
    for written, linked in zip(sizes, each, strict=True):
        load.append(load[-1] + written + PRODUCT_RATE * sum([count for _, _, count in linked]))
    frontier = _Frontier(below, rows, samples)
    for end, shape in zip(tape.outputs, out_shapes, strict=True):
        if end is not None:
            frontier.add(end, prod(shape), prod(shape), end)
    found, falling, whole = [], 0.0, load[-1]
    for at, node in enumerate(nodes):
        if at == 0:
            found.append(TurningPoint(0, rising[0], frontier.held, not frontier.others))
        else:
            own = frontier.numbers
            work = min(falling, own * load[at]) + min(rising[at], own * (whole - load[at]))
            product = PRODUCT_RATE * frontier.product
            found.append(TurningPoint(at, work, frontier.held, not frontier.others, product))
        start = frontier.since.get((node, 0)) if is_pointwise(node.name) else None
        rate = frontier.take(node)
        for edge, size, count in each[at]:
            same = start if size == sizes[at] else None
            falling += PRODUCT_RATE * count * rate + frontier.add(edge, size, count * rate, same)
    found.append(TurningPoint(len(nodes), falling, frontier.held, True))
    answer = frontier.held - sum([node.numel for node in tape.inputs])
    for at in range(1, len(nodes)):
        product = found[at].product + answer
        found[at] = found[at]._replace(work=found[at].work + product, product=product)
    return found


def narrowest(tape: Tape) -> int:
    """Return the least size of what is alive together at a place of a tape between its ends."""
    alive = {end: size_of(end) for end in tape.outputs if end is not None}
    width = sum(alive.values())
    least = sum([node.numel for node in (*tape.nodes, *tape.inputs)])
    for node in tape.nodes:
        for slot in range(len(node.outputs)):
            width -= alive.pop((node, slot), 0)
        for edge in node.inputs:
            if edge is not None and edge not in alive:
                alive[edge] = size = size_of(edge)
                width += size
        if width < least:
            least = width
    return least


class Walk(NamedTuple):
    """The work of a walk from the outputs down.

    Attributes:
        work: numbers written and multiplied, as the last of `places` has it.
        called: the part of it that is multiplied at nodes which are called, on seeds or on rows.
        crowd: how many blocks more than one arrive at nodes, for each way on which entries meet at a tensor.
    """

    work: float
    called: float
    crowd: int


def reverse_walk(tape: Tape, out_shapes: Sequence[Sequence[int]], meets: bool = False) -> Walk:
    """Return the work of reverse order; the least, if entries that ``meets`` always stand at the same places."""
    key = ("reverse", meets)
    if key not in tape.estimates:
        tape.estimates[key] = _reverse_walk(tape, out_shapes, meets)
    found: Walk = tape.estimates[key]
    return found


def rows_work(tape: Tape, rows: int) -> float:
    """Return the work of dense rows through a tape, but for multiplications at nodes that are called.

    A pointwise node writes as many numbers as its output has for an input that it broadcasts, too.
    """
    numbers = tape.numel + sum([node.numel for node in tape.inputs])
    counts = 0
    for node in tape.nodes:
        if is_multiplied(node.name):
            counts += sum([count for _, _, count in _linked(node)])
            numbers += windows(node)
        elif is_pointwise(node.name):
            wide = [edge for edge in node.inputs if edge is not None and size_of(edge) < node.numel]
            numbers += len(wide) * node.numel
    return rows * (numbers + PRODUCT_RATE * counts)


def _reverse_walk(tape: Tape, out_shapes: Sequence[Sequence[int]], meets: bool) -> Walk:
    all_rows, samples = sum(map(prod, out_shapes)), samples_of(tape, out_shapes)
    entries: dict[Edge, float] = {}
    since: dict[Edge, Edge] = {}
    for end, shape in zip(tape.outputs, out_shapes, strict=True):
        if end is not None:
            entries[end] = entries.get(end, 0.0) + prod(shape)
            since[end] = end
    work, called, crowd = 0.0, 0.0, 0
    several = dict.fromkeys(entries, 1)
    for node in tape.nodes:
        rate = _rate(node, entries)
        start = since.get((node, 0)) if is_pointwise(node.name) else None
        blocks = min(several.get((node, 0), 1), MOST_BLOCKS) if mixes_nothing(node.name) else 1
        crowd += blocks - 1
        for edge, size, count in _linked(node):
            before, sent = entries.get(edge), count * rate
            same = start if size == node.numel else None
            if before is None:
                before, after = 0.0, sent
                since[edge] = same or edge
                several[edge] = blocks
            elif meets or since[edge] is same:
                after = max(before, sent)
            else:
                after = before + sent
                since[edge] = edge
                several[edge] += blocks
            whole = size * all_rows / samples.of(edge)
            if after >= whole:  # it is dense
                after, several[edge] = whole, 1
            entries[edge] = after
            work += PRODUCT_RATE * sent + after - before
            called += PRODUCT_RATE * sent if is_called(node.name) else 0.0
    return Walk(work, called, crowd)


def _rate(node: Node, entries: dict[Edge, float]) -> float:
    """Return how many entries there are for each number of a node's outputs."""
    if len(node.outputs) == 1:
        return entries.get((node, 0), 0.0) / node.numel
    reached = [(node, slot) for slot in range(len(node.outputs)) if (node, slot) in entries]
    return sum([entries[edge] for edge in reached]) / (sum(map(size_of, reached)) or 1)


def _linked(node: Node) -> list[tuple[Edge, int, int]]:
    """Return the tensors a node reads, with their sizes and the links to them."""
    plain, own = mixes_nothing(node.name), node.numel
    found = []
    for k, edge in enumerate(node.inputs):
        if edge is not None:
            size = size_of(edge)
            found.append((edge, size, max(own, size) if plain else links(node, k)))
    return found


def _rise(
    tape: Tape, each: Sequence[Sequence[tuple[Edge, int, int]]], samples: Samples
) -> tuple[dict[Edge, float], list[float]]:
    """Return the entries of each tensor's Jacobian, and the work of the forward walk up to each place."""
    columns = sum([node.numel / samples.of((node, 0)) for node in tape.inputs])
    entries: dict[Edge, float] = {(node, 0): float(node.numel) for node in tape.inputs}
    since: dict[Edge, Edge] = {(node, 0): (node, 0) for node in tape.inputs}
    work = [0.0]
    for node, linked in zip(reversed(tape.nodes), reversed(each), strict=True):
        arrived = most = written = 0.0
        starts: set[Edge | None] = set()
        pointwise = is_pointwise(node.name)
        for edge, size, count in linked:
            sent = count * entries[edge] / size
            arrived += sent
            most = max(most, sent)
            starts.add(since[edge] if pointwise and size == node.numel else None)
        start = starts.pop() if len(starts) == 1 else None
        first = size_of((node, 0))
        for slot in range(len(node.outputs)):
            size = size_of((node, slot))
            entries[node, slot] = got = min((most if start else arrived) * size / first, size * columns)
            since[node, slot] = start or (node, slot)
            written += got
        if isinstance(node.fn, BackwardCFunction):  # called on every row of its own
            written += sum([count for _, _, count in linked])
        elif is_called(node.name):  # on those, or on all columns
            written += CALLED_RATE * sum([min(count, size * columns) for _, size, count in linked])
        elif kind_of(node.name) == "convolution":  # the same, but for each entry of the image
            written += CALLED_RATE * sum([size * min(node.numel, columns) for _, size, _ in linked])
        work.append(work[-1] + PRODUCT_RATE * arrived + written)
    work.reverse()
    return entries, work


class _Frontier:
    """The tensors alive at a place, with the entries that the nodes above have sent to each so far.

    ``numbers`` is the size of a sample of them, ``held`` what both factors hold, ``product`` what multiplying them
    takes, ``others`` how many are not the first output of a node.
    """

    def __init__(self, below: dict[Edge, float], rows: float, samples: Samples) -> None:
        self.alive: dict[Edge, float] = {}
        self.since: dict[Edge, Edge] = {}
        self.below, self.rows, self.samples = below, rows, samples
        self.numbers = self.held = self.product = 0.0
        self.others = 0

    def add(self, edge: Edge, size: int, entries: float, start: Edge | None) -> float:
        """Send entries to a tensor, by pointwise ops alone from where they started; gives how many there are more.

        None stands there twice.
        """
        below, before = self.below[edge], self.alive.get(edge)
        if before is None:
            before, after = 0.0, entries
            self.since[edge] = start or edge
            self.numbers += size / self.samples.of(edge)
            self.held += below
            self.others += edge[1] != 0
        elif self.since[edge] is start:
            after = max(before, entries)
        else:
            after = before + entries
            self.since[edge] = edge
        after = self.alive[edge] = min(after, size * self.rows / self.samples.of(edge))
        more = after - before
        self.held += more
        self.product += more * below / size
        return more

    def take(self, node: Node) -> float:
        """Take what was sent to a node's outputs off the frontier; gives how much it is for each of their numbers."""
        total, numbers = 0.0, 0
        for slot in range(len(node.outputs)):
            edge = (node, slot)
            entries = self.alive.pop(edge, None)
            if entries is not None:
                size, below = size_of(edge), self.below[edge]
                self.numbers -= size / self.samples.of(edge)
                self.held -= entries + below
                self.product -= entries * below / size
                self.others -= slot != 0
                total += entries
                numbers += size
        return total / (numbers or 1)
