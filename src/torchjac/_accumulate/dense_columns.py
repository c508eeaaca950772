"""The dense way upward: columns pulled through the graph of the backward formulas.

    g = Jᵀu is linear in the cotangent u, so that ∂⟨g, v⟩/∂u = J v.

The graph from u to g, recorded once, takes a tangent up for about twice what a cotangent costs on its way down. So
what is made of the inputs by small tensors alone is left to rows of the identity, and what they give goes up above
it. It is what is left where few columns go through many small ops, each of which is faster than Python is at a node.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.cost import rows_pay_below
from .._blocks.tracing import is_finite
from .._blocks.zeros import zeros
from .._capture.capture import Captured
from .._capture.tape import Edge, Meta, Node, Tape, size_of
from .._plan.recording import engine_runs
from .._rules.call import call, fit
from .engine_rows import engine_rows


def dense_columns(
    captured: Captured, inputs: Sequence[Tensor], chunk: int | None
) -> list[list[Tensor]] | None:
    """Return the dense Jacobians ``[output][input]`` of a tape that `goes_in_columns`; None where not found so.

    That is where a formula has no derivative, and where a number is not finite: a zero that meets an infinite
    factor on its way up is NaN, while a cotangent may never come there.
    """
    engine_runs()
    tape, outputs = captured.tape, captured.outputs
    above, low, middle = cut(tape)
    sizes = [tensor.numel() for tensor in inputs]
    try:
        cotangents, formulas = _record(above, tape.outputs, outputs)
        middle = [edge for edge in middle if edge in formulas and size_of(edge)]
        found: Sequence[Tensor | None] = [None] * len(cotangents)
        if middle and any(sizes):
            tangents = _tangents(tape, low, middle, chunk)
            found = engine_rows(
                [formulas[edge] for edge in middle],
                lambda begin, end: [part[begin:end] for part in tangents],
                sum(sizes),
                list(cotangents.values()),
                above,
                chunk,
            )
    except RuntimeError:  # no derivative, or none that was recorded
        return None
    if not all(columns is None or is_finite(columns) for columns in found):
        return None
    columns_of = dict(zip(cotangents, found, strict=True))
    return [_parted(columns_of.get(number), output, inputs) for number, output in enumerate(outputs)]


def cut(tape: Tape) -> tuple[list[Node], list[Node], list[Edge]]:
    """Return the nodes that columns go up through, those below that rows go down through, and the tensors between.

    Below may stand what is made of the inputs through tensors that are all smaller than an average one.
    """
    nodes, numbers = tape.nodes, tape.numel
    columns = sum([node.numel for node in tape.inputs])
    low = set(tape.inputs)
    for node in reversed(nodes):
        if node.numel * len(nodes) < numbers and all(edge is None or edge[0] in low for edge in node.inputs):
            low.add(node)
    above, below = ([node for node in nodes if (node in low) is side] for side in (False, True))
    middle = _ends(tape, above, low)
    rows = sum(map(size_of, middle))
    if rows_pay_below(rows, columns, sum([node.numel for node in below]), len(below)):
        return above, below, middle
    return nodes, [], _ends(tape, nodes, tape.inputs)


def _ends(tape: Tape, above: Sequence[Node], low: Container[Node]) -> list[Edge]:
    """Return the tensors that outputs and some nodes read of others."""
    read = [*tape.outputs, *(edge for node in above for edge in node.inputs)]
    return list(dict.fromkeys(edge for edge in read if edge is not None and edge[0] in low))


def _meta(edge: Edge) -> Meta:
    node, slot = edge
    return node.outputs[slot]


def _record(
    above: Sequence[Node], ends: Sequence[Edge | None], outputs: Sequence[Tensor]
) -> tuple[dict[int, Tensor], dict[Edge, Tensor]]:
    """Cotangents by the numbers of their outputs, and what they become at the tensors below, with a graph between.

    It goes node by node, for the engine gives one tensor below what goes through another one.
    """
    cotangents: dict[int, Tensor] = {}
    pending: dict[Edge, Tensor] = {}
    with torch.enable_grad():
        for number, end in enumerate(ends):
            if end is not None:
                cotangents[number] = u = torch.ones_like(outputs[number]).requires_grad_()
                pending[end] = pending[end] + u if end in pending else u
        _take_down(above, pending)
    return cotangents, pending


def _take_down(nodes: Sequence[Node], pending: dict[tuple[Node, int], Tensor]) -> None:
    """Take the cotangents that wait at nodes down to the tensors below them."""
    for node in nodes:
        cotangents = [pending.pop((node, slot), None) for slot in range(len(node.outputs))]
        if all(cotangent is None for cotangent in cotangents):
            continue
        for edge, result in zip(node.inputs, call(node, cotangents), strict=False):
            if edge is not None and result is not None:
                below, slot = edge
                result = fit(result, below.outputs[slot])
                other = pending.get(edge)
                pending[edge] = result if other is None else other + result


def _tangents(tape: Tape, low: Sequence[Node], middle: Sequence[Edge], chunk: int | None) -> list[Tensor]:
    """Return the columns of the Jacobians of tensors by all inputs, by rows through the nodes below them."""
    metas, counts = list(map(_meta, middle)), list(map(size_of, middle))
    _, dtype, device = metas[0]

    def identity(begin: int, end: int) -> list[Tensor]:
        rows = torch.zeros(end - begin, sum(counts), dtype=dtype, device=device)
        rows.diagonal(begin).fill_(1)
        parts = zip(rows.split(counts, 1), metas, strict=True)
        return [part.to(meta.dtype).reshape(-1, *meta.shape) for part, meta in parts]

    starts = [GradientEdge(node.fn, slot) for node, slot in middle]
    goals = [GradientEdge(node.fn, 0) for node in tape.inputs]
    found = engine_rows(starts, identity, sum(counts), goals, low, chunk)
    rows = torch.cat(
        [
            torch.zeros(sum(counts), node.numel, dtype=dtype, device=device)
            if part is None
            else part.reshape(sum(counts), node.numel)
            for part, node in zip(found, tape.inputs, strict=True)
        ],
        1,
    )
    parts = zip(rows.split(counts), metas, strict=True)
    return [part.t().to(meta.dtype).reshape(-1, *meta.shape) for part, meta in parts]


def _parted(columns: Tensor | None, output: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the columns of one output as its Jacobians with respect to each input."""
    shapes = [(*output.shape, *tensor.shape) for tensor in inputs]
    if columns is None:
        return [zeros(shape, output.dtype, output.device) for shape in shapes]
    parts = columns.split([tensor.numel() for tensor in inputs])
    return [
        part.movedim(0, -1).reshape(shape).contiguous() for part, shape in zip(parts, shapes, strict=True)
    ]
