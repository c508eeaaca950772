"""Which order the local Jacobians of a tape are multiplied in: picked from shapes, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from .._blocks.cost import factors_pay, is_narrow, turn_may_pay, turn_pays, work_matters
from .._capture.tape import Node, Tape
from .estimate import narrowest, places, reverse_walk
from .forward import goes_forward


class Order(NamedTuple):
    """The order in which a tape is accumulated.

    Attributes:
        tape: the nodes it is about.
        direction: "reverse", "forward", or "cut": the tapes above and below each in an order of its own.
        middle: the tensors of the cut, first outputs of nodes.
        above: the order above the cut.
        below: the order below it.
    """

    tape: Tape
    direction: str
    middle: tuple[Node, ...] = ()
    above: Order | None = None
    below: Order | None = None


def pick(tape: Tape, out_shapes: Sequence[Sequence[int]], factors: bool = False) -> Order:
    """Return the order that costs least; reverse, unless another gains enough.

    With ``factors`` the answer may be kept as a product: then first of all the cut whose two factors hold least,
    where that is far less than the answer does.
    """
    key = "factors" if factors else "order"
    if key not in tape.estimates:
        tape.estimates[key] = _choose(tape, out_shapes, factors)
    direction, at = tape.estimates[key]
    return ordered(tape, direction, at, out_shapes)


def ordered(tape: Tape, direction: str, at: int, out_shapes: Sequence[Sequence[int]]) -> Order:
    """Return the order that was estimated for tapes of this make, of which a Function may belong to another class."""
    if direction == "reverse" or not goes_forward(tape):
        return Order(tape, "reverse")
    return split(tape, at, out_shapes) if direction == "cut" else Order(tape, direction)


def _choose(tape: Tape, out_shapes: Sequence[Sequence[int]], factors: bool) -> tuple[str, int]:
    """Return the direction of an order, and the place of a cut."""
    if not ((factors or _may_turn(tape, out_shapes)) and can_weigh(tape, out_shapes)):
        return "reverse", 0
    narrow = _is_narrow(tape, out_shapes)
    # Factors may hold little where no place is narrow too, as A ⊗ B does: for that, much must be held otherwise.
    if not (narrow and factors) and not work_matters(
        reverse_walk(tape, out_shapes).work, len(tape.nodes), narrow
    ):
        return "reverse", 0
    found = places(tape, out_shapes)
    forward, reverse = found[0].work, found[-1].work
    cuts = [place for place in found[1:-1] if place.splits]
    if cuts and factors:
        slim = min(cuts, key=lambda place: place.held)
        if factors_pay(slim.held, found[-1].held - sum([node.numel for node in tape.inputs])):
            return "cut", slim.at
    if cuts:
        quick = min(cuts, key=lambda place: place.work)
        if turn_pays(quick.work, min(forward, reverse)):
            return "cut", quick.at
    return ("forward" if turn_pays(forward, reverse) else "reverse"), 0


def _may_turn(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Return whether there is so much to do that another order can be worth an estimate."""
    return turn_may_pay(sum(map(prod, out_shapes)), tape.numel)


def _is_narrow(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Return whether another order is likely to gain: there are few inputs or a bottleneck."""
    rows = sum(map(prod, out_shapes))
    columns = sum([node.numel for node in tape.inputs])
    # No place is narrower than the least tensor, which is quicker to find.
    least = min([node.numel for node in tape.nodes], default=0)
    return (
        _may_turn(tape, out_shapes)
        and is_narrow(rows, columns, least)
        and is_narrow(rows, columns, narrowest(tape))
    )


def can_weigh(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Return whether other orders are possible, and no tensor on the tape is empty, as then no shares follow."""
    shapes = [*out_shapes, *(meta.shape for node in (*tape.nodes, *tape.inputs) for meta in node.outputs)]
    return goes_forward(tape) and not any(0 in shape for shape in shapes)


def split(tape: Tape, at: int, out_shapes: Sequence[Sequence[int]]) -> Order:
    """Return the order that cuts a tape below some nodes."""
    upper, lower = tape.nodes[:at], tape.nodes[at:]
    made = set(upper)
    reached = [*tape.outputs, *(edge for node in upper for edge in node.inputs)]
    middle = tuple(dict.fromkeys(edge[0] for edge in reached if edge is not None and edge[0] not in made))
    above = Tape(upper, tape.outputs, {node: number for number, node in enumerate(middle)}, tape.foreign)
    below = Tape(lower, [(node, 0) for node in middle], tape.inputs, tape.foreign)
    shapes = [node.shape for node in middle]
    return Order(tape, "cut", middle, pick(above, out_shapes), pick(below, shapes))
