"""Rows of cotangents taken the rest of the way by PyTorch's engine, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.block import Block
from .._blocks.cost import ENGINE_NODES, FEW_ROWS, nodes_pay
from .._blocks.merge import block_of_rows, rows_of
from .._blocks.tracing import leaves_a_trail
from .._capture.capture import map_rows
from .._capture.tape import Edge, Node, Tape
from .._plan.price import ENGINE_NODE, NUMBER, mapped
from .._plan.recorder import recorder
from .._plan.recording import engine_runs, whole
from .._rules.batched_parts import Waiting, joined
from .._rules.batched_vjp import goes_in_front, vjp_rows
from .._rules.vjp_support import (
    CANNOT_BATCH,
    all_can_vmap,
    can_vmap,
    engine_refuses,
    engine_takes_batches,
    needs_own_vjp,
    noted,
    raise_if_out_of_memory,
    takes_rows_itself,
)
from .progress import track
from .tape_costs import is_small, rows_at_once

#: Gives the cotangents of the rows from one number to another, one tensor for each start
Rows: TypeAlias = Callable[[int, int], Sequence[Tensor]]


def engine_rows(
    starts: Sequence[Any],
    rows: Rows,
    count: int,
    inputs: Sequence[Tensor] | Sequence[GradientEdge],
    nodes: Sequence[Node],
    chunk: int | None,
    into: Sequence[Tensor | None] = (),
) -> list[Tensor | None]:
    """Return rows of gradients of the inputs, for rows of cotangents at some tensors or edges of the graph.

    ``rows(begin, end)`` gives the cotangents of the rows from ``begin`` to ``end``, one tensor for each start.
    ``nodes`` are those on the way: where one must not be called on a batch, and where a batched call fails
    (no batching rule, or a Function that leaves PyTorch), the engine is asked row by row. That is always
    right, and an error of the user's own shows itself again. Where no graph is recorded, several chunks are
    written ``into`` the tensors given for the inputs, of all rows each.
    """
    size = chunk or rows_at_once(nodes, count, through=True)
    batched = count > FEW_ROWS and engine_takes_batches(nodes)
    edges = [goal for goal in inputs if not isinstance(goal, Tensor)]
    if size >= count and not into and len(edges) == len(inputs):
        ends = [
            (start, None) if isinstance(start, Tensor) else (start.node, start.output_nr) for start in starts
        ]
        goals = [(edge.node, edge.output_nr) for edge in edges]
        numbers = count * sum([node.numel for node in nodes])
        given = (*chain(*ends), *rows(0, count), *chain(*goals))
        return list(_at_once(len(nodes), numbers, batched, len(starts), *given))
    engine_runs()
    with noted(f"sending {count} rows through {len(nodes)} nodes"):
        if batched:
            try:
                parts = (
                    _batch(starts, rows(at, min(at + size, count)), inputs)
                    for at in track(range(0, count, size), f"{size} rows at once")
                )
                return _join(parts, count, into)
            except CANNOT_BATCH as error:
                raise_if_out_of_memory(error, f"sending {size} of {count} rows at once through the graph")
        return _join(_one_by_one(starts, rows, count, inputs), count, into)


def _engine_price(nodes: int, numbers: int, batched: bool, outputs: int, *given: Any) -> float:
    """Return what the engine takes, in microseconds: once on a batch, or for each row."""
    each = numbers / max(nodes, 1)
    if batched:
        return mapped(ENGINE_CALLS * nodes, each / ENGINE_CALLS)
    return (nodes + ENGINE_NODES) * len(given[2 * outputs]) * ENGINE_NODE + NUMBER * numbers


#: Calls of PyTorch that the engine makes for a node on a batch of rows
ENGINE_CALLS = 3.5


@partial(whole, price=_engine_price)
def _at_once(nodes: int, numbers: int, batched: bool, outputs: int, *given: Any) -> list[Tensor | None]:
    """Return all rows through some nodes by the engine, in one batch where that works; they move ``moved`` numbers.

    Given are for each of the ``outputs`` a tensor and None, or a node and the number of its output; the cotangents of
    all rows for each; and a node and the number of its output for each input.
    """
    pairs = list(zip(given[: 2 * outputs : 2], given[1 : 2 * outputs : 2], strict=True))
    starts = [start if slot is None else GradientEdge(start, slot) for start, slot in pairs]
    cotangents, goals = given[2 * outputs : 3 * outputs], given[3 * outputs :]
    inputs = [GradientEdge(node, slot) for node, slot in zip(goals[::2], goals[1::2], strict=True)]
    count = len(cotangents[0])
    with noted(f"sending {count} rows through {nodes} nodes"):
        if batched:
            try:
                at_once = track([cotangents], f"{count} rows at once")
                return _join((_batch(starts, rows, inputs) for rows in at_once), count, ())
            except CANNOT_BATCH as error:
                raise_if_out_of_memory(error, f"sending {count} of {count} rows at once through the graph")
        return _join(_one_by_one(starts, partial(_between, cotangents), count, inputs), count, ())


def rows_one_by_one(
    starts: Sequence[Any], rows: Rows, count: int, inputs: Sequence[GradientEdge]
) -> list[Tensor | None]:
    """Return what `engine_rows` does where nothing is known of the graph: the engine is asked row by row."""
    engine_runs()
    with noted(f"sending {count} rows through a graph, one after another"):
        return _join(_one_by_one(starts, rows, count, inputs), count, ())


def _one_by_one(
    starts: Sequence[Any], rows: Rows, count: int, inputs: Sequence[Tensor] | Sequence[GradientEdge]
) -> Iterator[list[Tensor | None]]:
    for at in track(range(count), "rows"):
        found = _engine(starts, [row[0] for row in rows(at, at + 1)], inputs)
        yield [None if grad is None else grad.unsqueeze(0) for grad in found]


def _join(
    parts: Iterator[Sequence[Tensor | None]], count: int, into: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return all rows of each column; every chunk is written in place, so that none is kept beside the answer."""
    first = list(next(parts))
    shapes = [grad.shape for grad in first if grad is not None]
    if not shapes or shapes[0][0] == count:
        return first
    if leaves_a_trail(grad for grad in first if grad is not None):
        columns = zip(first, *parts, strict=True)
        return [None if column[0] is None else torch.cat(column) for column in columns]
    whole = [
        None if grad is None else grad.new_empty(count, *grad.shape[1:]) if target is None else target
        for grad, target in zip(first, into or [None] * len(first), strict=True)
    ]
    at = 0
    for part in chain([first], parts):
        for grad, target in zip(part, whole, strict=True):
            if grad is not None:
                target[at : at + len(grad)] = grad  # type: ignore[index]  # every chunk reaches the same inputs
        at += shapes[0][0]
    return whole


def _batch(
    starts: Sequence[Any], cotangents: Sequence[Tensor], inputs: Sequence[Tensor] | Sequence[GradientEdge]
) -> list[Tensor | None]:
    """Return the engine once on a batch of rows.

    Its own ``is_grads_batched`` takes no edges, cannot stand inside a vmap, and was four to seven times slower
    on graphs of a hundred nodes and more (torch 2.9-2.13).
    """
    return map_rows(lambda *part: _engine(starts, part, inputs), cotangents)


def _engine(
    starts: Sequence[Any], cotangents: Sequence[Tensor], inputs: Sequence[Tensor] | Sequence[GradientEdge]
) -> tuple[Tensor | None, ...]:
    found = torch.autograd.grad(
        starts, inputs, cotangents, retain_graph=True, create_graph=torch.is_grad_enabled(), allow_unused=True
    )
    return tuple(
        [grad if grad is None or grad.layout is torch.strided else grad.to_dense() for grad in found]
    )


def walk_rows(
    waiting: Callable[[int, int], dict[Edge, Tensor]],
    nodes: Sequence[Node],
    goals: Sequence[Node],
    count: int,
    chunk: int | None,
    into: Sequence[Tensor | None] = (),
) -> list[Tensor | None] | None:
    """Return rows that wait at nodes taken down to others, node by node; None where the engine is to take them.

    ``waiting(begin, end)`` gives the rows from ``begin`` to ``end``. Several chunks are written ``into`` the tensors
    given, as by `engine_rows`.
    """
    size = _size_by_node(nodes, count, chunk)
    if size is None:
        return None

    def walked(at: int) -> list[Tensor | None]:
        number = min(size, count - at)
        pending: Waiting = dict(waiting(at, at + number))
        for node in nodes:
            vjp_rows(node, pending, number)
        return [joined(pending.get((node, 0)), node.outputs[0], number) for node in goals]

    with noted(f"sending {count} rows through {len(nodes)} nodes"):
        try:
            return _join(map(walked, track(range(0, count, size), f"{size} rows at once")), count, into)
        except CANNOT_BATCH as error:
            raise_if_out_of_memory(
                error, f"sending {size} of {count} rows at once through {len(nodes)} nodes"
            )
            if _goes_by_node(nodes):
                raise
            return None  # the engine finds out which node it is, or shows the user's own error


def _size_by_node(nodes: Sequence[Node], count: int, chunk: int | None) -> int | None:
    """Return how many rows to take at once through nodes one after another; None where the engine is to take them.

    That is where they do not go at once, or too many nodes would be called under vmap all the same; where the engine
    could not take a batch, rows that do not go at once go in chunks. A row or two the engine takes faster, unless
    all is small; two not where a program is recorded, whose steps take both at once and none of Python's time. Where
    it would record wrong derivatives, rows go node by node or an error is raised.
    """
    names = {node.name for node in nodes}
    by_engine = not _goes_by_node(nodes) and not engine_refuses(nodes)
    few = FEW_ROWS if recorder() is None else 1
    if by_engine and count <= few and not is_small(nodes, count):
        return None
    size = chunk or rows_at_once(nodes, count, through=True)
    if by_engine and all_can_vmap(names):
        known = sum([goes_in_front(node.name) for node in nodes])
        return size if nodes_pay(known, len(nodes)) else None
    return size if count <= 1 or all(map(can_vmap, nodes)) else None


def _goes_by_node(nodes: Sequence[Node]) -> bool:
    """Return whether a node must not be left to the engine, and each takes rows by itself."""
    return needs_own_vjp({node.name for node in nodes}) and all(map(takes_rows_itself, nodes))


def finish_rows(
    pending: dict[Edge, dict[int, list[Block]]],
    tape: Tape,
    rest: list[Node],
    out_shapes: Sequence[Sequence[int]],
    chunk: int | None,
) -> None:
    """Replace the pending blocks of nodes, all dense rows, by those that reach the inputs."""
    waiting = {edge: pending.pop(edge) for edge in list(pending) if edge[0] not in tape.inputs}
    goals = list(tape.inputs)
    for output in {output for blocks in waiting.values() for output in blocks}:
        shape = out_shapes[output]
        rows = {
            edge: rows_of(blocks[output][0], len(shape), prod(shape))
            for edge, blocks in waiting.items()
            if output in blocks
        }
        for goal, value in zip(goals, _finished(rows, goals, rest, prod(shape), chunk), strict=True):
            if value is not None:
                block = block_of_rows(value, shape, goal.shape)
                pending.setdefault((goal, 0), {}).setdefault(output, []).append(block)


def _finished(
    rows: dict[Edge, Tensor], goals: Sequence[Node], rest: list[Node], count: int, chunk: int | None
) -> Sequence[Tensor | None]:
    """Return rows taken down to the inputs, node by node or by the engine."""
    whole = list(rows.values())
    found = walk_rows(
        lambda *span: dict(zip(rows, _between(whole, *span), strict=True)), rest, goals, count, chunk
    )
    if found is not None:
        return found
    for node in rest:
        node.calls += 1
    starts = [GradientEdge(node.fn, slot) for node, slot in rows]
    ends = [GradientEdge(node.fn, 0) for node in goals]
    return engine_rows(starts, partial(_between, whole), count, ends, rest, chunk)


def _between(rows: Sequence[Tensor], begin: int, end: int) -> list[Tensor]:
    """Return the rows from one number to another."""
    return [part if end - begin == len(part) else part[begin:end] for part in rows]
