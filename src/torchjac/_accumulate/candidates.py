"""The candidates for the dense Jacobians of a tape, and what each is estimated to take.

    rows        the identity over the outputs, pulled down through the whole graph
    columns     the identity over the inputs, up through the graph of the backward formulas
    reverse     blocks by structure, from the outputs down
    forward     blocks by structure, from the inputs up
    cut         blocks from both ends to a narrow place, and multiplied there

One law prices them all, in microseconds: PyTorch is called at each node, numbers are written and multiplied, and by
structure Python works at each node and for each block. That is paid at the first calls, for a candidate is then
recorded as a program; programs are compared by their own steps. The numbers of nodes and of calls below were fitted to
the everyday calls of `benchmarks`, of which each candidate was computed, recorded and run.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt
from typing import NamedTuple

import torch

from .._blocks.cost import FEW_ROWS, TURN_GAIN, are_few
from .._blocks.tracing import inside_functorch
from .._capture.capture import mapped_over
from .._capture.tape import Tape
from .._plan.price import BLOCK, ENGINE_NODE, LAUNCH, NODE, NUMBER
from .._rules.nnz_estimate import kind_of
from .._rules.vjp_support import all_can_vmap, engine_refuses, needs_own_vjp, takes_rows_itself
from .estimate import TurningPoint, places, reverse_walk, rows_work
from .order import Order, can_weigh, ordered
from .tape_costs import ENDS_NODES, goes_in_columns, is_small, walks_slower


class Candidate(NamedTuple):
    """A way to dense Jacobians, with what it is estimated to take, in microseconds.

    Attributes:
        name: "rows", "columns", "reverse", "forward" or "cut".
        python: what Python takes at every call without a program.
        least: what every call takes beside that, if entries that meet at a tensor stand at the same places.
        most: the same, if none of them do.
        at: how many nodes lie above a cut.
    """

    name: str
    python: float = 0.0
    least: float = 0.0
    most: float = 0.0
    at: int = 0

    @property
    def each(self) -> float:
        """Return the time of a program, in the middle of the range."""
        return sqrt(self.least * self.most)

    def total(self, calls: float) -> float:
        """Return the time of a first call and of a number of programs."""
        return self.each if calls == inf else self.python + calls * self.each


ROWS, REVERSE = Candidate("rows"), Candidate("reverse")

#: Python's time at a node, in units of `NODE`: by rows, down and up by structure, where formulas are transposed
PYTHON = {"rows": 0.5, "reverse": 1.5, "forward": 2.0, "cut": 2.0}

#: Python's time at a node that is called on seeds, and at one that writes into a part, in other nodes
CALLED_NODES, WRITE_NODES = 8, 4

#: A program's calls of PyTorch at a node that is called on seeds, in other nodes
CALLED_LAUNCHES = 16

#: A program's calls of PyTorch at a node: at least, and at most
LAUNCHES = {"rows": (1.5, 1.5), "reverse": (1.0, 4.0), "forward": (1.0, 16.0), "cut": (1.0, 25.0)}

#: The time to begin with columns, in nodes of a walk by structure
COLUMNS_NODES = 40

#: The formulas for columns leave a graph, through which PyTorch's engine goes again: its time at each node, in nodes
COLUMNS_PASSES = 4


def first_choice(tape: Tape, out_shapes: Sequence[Sequence[int]], mixed: bool = False) -> Candidate:
    """Return the candidate for a first call."""
    return candidates(tape, out_shapes, mixed)[0]


def candidates(
    tape: Tape, out_shapes: Sequence[Sequence[int]], mixed: bool = False, calls: float = 1
) -> list[Candidate]:
    """Return the candidates, the one that is estimated to take least for a first call and ``calls`` programs first.

    Where numbers are few, and rows lose less than an estimate takes, rows stand alone and nothing is estimated. Columns
    go through PyTorch's engine, which leaves no program: they stand for a first call only.
    ``mixed`` tells that inputs and outputs differ in precision: then columns differ from rows.
    """
    rows = sum(map(prod, out_shapes))
    if rows <= 1 or is_small(tape.nodes, rows * calls):
        if _takes_rows(tape):
            return [ROWS]
        if needs_own_vjp(tape.names):
            return [REVERSE]
        if rows <= 1 or (rows <= FEW_ROWS and not engine_refuses(tape.nodes)):
            return [ROWS]
    found = [each for each in estimated(tape, out_shapes, mixed) if calls == 1 or each.name != "columns"]
    return sorted(found, key=lambda each: each.total(calls))


def order_of(candidate: Candidate, tape: Tape, out_shapes: Sequence[Sequence[int]]) -> Order | None:
    """Return the order of a candidate by structure; None for others."""
    if candidate.name in ("reverse", "forward", "cut"):
        return ordered(tape, candidate.name, candidate.at, out_shapes)
    return None


def estimated(tape: Tape, out_shapes: Sequence[Sequence[int]], mixed: bool) -> list[Candidate]:
    """Return every candidate of a tape that is right, with its estimate where one can be made."""
    key = (torch.is_grad_enabled(), inside_functorch(), mapped_over(), mixed)
    if key not in tape.estimates:
        tape.estimates[key] = _estimated(tape, out_shapes, mixed)
    found: list[Candidate] = tape.estimates[key]
    return found


def rows_are_slower(tape: Tape, out_shapes: Sequence[Sequence[int]], mixed: bool) -> float:
    """Return how many microseconds longer a run takes by rows than by structure; infinite where rows are not right."""
    each = {candidate.name: candidate.each for candidate in estimated(tape, out_shapes, mixed)}
    return each["rows"] - each["reverse"] if "rows" in each else inf


def _estimated(tape: Tape, out_shapes: Sequence[Sequence[int]], mixed: bool) -> list[Candidate]:
    rows, columns = sum(map(prod, out_shapes)), sum([node.numel for node in tape.inputs])
    nodes, samples, slower = tape.nodes, mapped_over(), walks_slower()
    if 0 in [node.numel for node in (*nodes, *tape.inputs)]:  # of an empty tensor no share can be told
        return [REVERSE]

    kinds = [kind_of(node.name) for node in nodes]
    called = sum([_is_called(node.name) for node in nodes])
    launches = LAUNCH * (len(nodes) + CALLED_LAUNCHES * called)
    others = CALLED_NODES * called + WRITE_NODES * kinds.count("write")
    least, most = reverse_walk(tape, out_shapes, meets=True), reverse_walk(tape, out_shapes)

    def candidate(
        name: str, works: tuple[float, float], more: int = others, crowd: int = 0, at: int = 0
    ) -> Candidate:
        python = NODE * PYTHON[name] * (ENDS_NODES + len(nodes) + more) + BLOCK * crowd
        low, high = (
            calls * launches + NUMBER * samples * work
            for calls, work in zip(LAUNCHES[name], works, strict=True)
        )
        return Candidate(name, python * (1 if name == "rows" else slower), low, high + LAUNCH * crowd, at)

    found = [candidate("reverse", (least.work, most.work), crowd=most.crowd)]
    if not mixed and can_weigh(tape, out_shapes):
        forward, cut = _turned(places(tape, out_shapes))
        for way, place in (("forward", forward), ("cut", cut)):
            if place is not None and place.work < most.work:
                # An order must be estimated to take half as much as reverse does: the estimate of it is rough.
                works = place.work, TURN_GAIN**2 * place.work
                found.append(candidate(way, works, at=place.at))
    if _takes_rows(tape):
        work = rows_work(tape, rows) + least.called
        found.append(candidate("rows", (work, work), more=0))
        if not mixed and are_few(columns, rows) and goes_in_columns(tape):
            time = COLUMNS_NODES * NODE + (LAUNCH + COLUMNS_PASSES * ENGINE_NODE) * len(nodes)
            time += NUMBER * samples * rows_work(tape, columns)
            found.append(Candidate("columns", 0.0, time, time))
    return found


def by_sample(tape: Tape, rows: int, blocks: int) -> list[Candidate]:
    """Return the candidate by rows of all samples at once, ``rows`` for each, where rows are right.

    Structure is walked first at every call without a program: it tells which entries are read.
    """
    if not _takes_rows(tape):
        return []
    called = sum([_is_called(node.name) for node in tape.nodes])
    nodes = len(tape.nodes)
    work = rows_work(tape, rows) * NUMBER + LAUNCHES["rows"][1] * LAUNCH * (nodes + CALLED_LAUNCHES * called)
    python = (
        NODE * sum(PYTHON.values()) * (ENDS_NODES + nodes + CALLED_NODES * called) + BLOCK * nodes * blocks
    )
    return [Candidate("samples", python, work, work)]


def _is_called(name: str) -> bool:
    """Return whether a node is called on seeds."""
    return kind_of(name) in ("mixing", "linear algebra", "opaque", "convolution")


def _turned(found: Sequence[TurningPoint]) -> tuple[TurningPoint, TurningPoint | None]:
    """Return the place of forward order, and the best of a cut if that gains against it."""
    cuts = [place for place in found[1:-1] if place.splits and place.work * TURN_GAIN <= found[0].work]
    return found[0], min(cuts, key=lambda place: place.work, default=None)


def _takes_rows(tape: Tape) -> bool:
    """Return whether rows are right, and go through every node at once."""
    by_engine = all_can_vmap(tape.names) and not needs_own_vjp(tape.names)
    return by_engine or all(map(takes_rows_itself, tape.nodes))
