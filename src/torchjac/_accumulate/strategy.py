"""The strategy for dense answers: by rows or columns of the identity through the whole graph, or by structure."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from .._blocks import cost
from .._blocks.tracing import inside_functorch
from .._capture.capture import mapped_over
from .._capture.tape import Tape
from .._rules.nnz_estimate import is_multiplied, kind_of
from .._rules.vjp_support import (
    all_can_vmap,
    can_vmap,
    engine_refuses,
    needs_own_vjp,
    takes_rows_itself,
)
from .estimate import down, forward_work
from .order import can_weigh, pick
from .tape_costs import goes_in_columns, is_small


def way(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> str:
    """Return the way to dense answers: "rows", "columns" or "structure".

    By structure where that can be cheaper, and where only the rules are right. Each step asks for more than the one
    before, so that a tiny function pays for no estimate.
    """
    rows = sum(map(prod, out_shapes))
    small = rows <= 1 or is_small(tape.nodes, rows)
    if needs_own_vjp(tape.names):
        return "rows" if small and all(map(takes_rows_itself, tape.nodes)) else "structure"
    batched = all_can_vmap(tape.names) or all(map(can_vmap, tape.nodes))
    if small and (batched or rows <= 1 or not engine_refuses(tape.nodes)):
        return "rows"
    if not batched:
        return "structure"  # rows would go one by one
    columns = sum([node.numel for node in tape.inputs])
    few = cost.are_few(columns, rows) and goes_in_columns(tape)
    nodes = len(tape.nodes)
    if few and cost.columns_pay(columns * tape.numel, 0.0, nodes):
        return "columns"
    if 0 in [node.numel for node in (*tape.nodes, *tape.inputs)]:  # of an empty tensor no share can be told
        return "structure"
    if few and nodes > cost.COLUMNS_NODES and can_weigh(tape, out_shapes):
        work = min(down(tape, out_shapes).work, forward_work(tape, out_shapes))
        if cost.columns_pay(columns * tape.numel, work, nodes):
            return "columns"
    return "structure" if structure_pays(tape, out_shapes) else "rows"


def other_way(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> str | None:
    """Return the way that `way` does not choose, where it is as right and the numbers that rows move are few."""
    rows = sum(map(prod, out_shapes))
    batched = all_can_vmap(tape.names) or all(map(can_vmap, tape.nodes))
    if rows <= 1 or needs_own_vjp(tape.names) or not batched or rows * tape.numel > cost.WEIGHED_AT_MOST:
        return None
    return "rows" if way(tape, out_shapes) == "structure" else "structure"


def structure_pays(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Return whether structure spares more work than its walk takes in Python, for a tape that is not small.

    Where rows move very much it may be less than what is estimated, for shares that overlap are counted twice.
    """
    modes, mapped = (torch.is_grad_enabled(), inside_functorch()), mapped_over()
    key = (modes, mapped)
    if key not in tape.estimates:
        tape.estimates[key] = _structure_pays(tape, out_shapes, modes, mapped)
    pays: bool = tape.estimates[key]
    return pays


def _structure_pays(
    tape: Tape, out_shapes: Sequence[Sequence[int]], modes: tuple[bool, bool], mapped: int
) -> bool:
    nodes, rows = tape.nodes, sum(map(prod, out_shapes))
    kinds = [kind_of(node.name) for node in nodes]
    longer = cost.walk_numbers(kinds, *modes) / mapped
    moved = rows * tape.numel
    if rows * rows + moved <= longer and not any(map(is_multiplied, tape.names)):
        return False  # that was all there is to spare
    much = moved * mapped > cost.FREE_OFTEN * cost.free_numbers(len(nodes), *modes)
    work, spared, crowd = down(tape, out_shapes, most=much)
    longer += cost.crowd_numbers(crowd, *modes) / mapped
    if spared > longer:
        return True
    # In another order it may be more, if that can be worth to be weighed.
    if work + spared <= longer + cost.WEIGHED_NUMBERS * len(nodes):
        return False
    order = pick(tape, out_shapes)
    return order.direction != "reverse" and work + spared - order.work > longer
