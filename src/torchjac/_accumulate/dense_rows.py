"""The dense way: rows of the identity pulled through the whole graph.

It is what is left where structure cannot pay, and what is asked where something rides on PyTorch's engine (hooks).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.tracing import inside_functorch
from .._blocks.zeros import zeros
from .._capture.capture import Captured, as_batched
from .._capture.tape import Edge
from .._rules.vjp_support import engine_refuses
from .engine_rows import engine_rows, rows_one_by_one, walk_rows

#: Tensors to write into, ``[output][input]``; None where there is none
Targets: TypeAlias = Sequence[Sequence[Tensor | None]]


def dense_rows(
    captured: Captured,
    inputs: Sequence[Tensor],
    chunk: int | None,
    into: Targets | None = None,
    lead: int = 0,
) -> list[list[Tensor]]:
    """Return the dense Jacobians ``[output][input]``, by pushing rows of the identity through the whole graph.

    Outputs are taken one after another: a zero cotangent at another output could still meet an infinite
    factor and give NaN. Long answers are written ``into`` the contiguous tensors given. The first ``lead`` dims of an
    input, its samples, come before those of the output.
    """
    tape = captured.tape
    by_node = not captured.hooked and not torch.is_anomaly_enabled()
    shared = not engine_refuses(tape.nodes)
    answers = []
    for number, (output, end) in enumerate(zip(captured.outputs, tape.outputs, strict=True)):
        targets = [_as_rows(target, output) for target in into[number]] if into else ()
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if end is not None and output.numel():
            count = output.numel()
            begin = partial(_at_node, end, output, shared)
            walked = None
            if by_node:
                walked = walk_rows(begin, tape.nodes, list(tape.inputs), count, chunk, targets)
            if walked is None:
                edges = [GradientEdge(node.fn, 0) for node in tape.inputs]
                walked = engine_rows(
                    [output], lambda *span, output=output: [_identity(output, *span)],
                    count, edges, tape.nodes, chunk, targets,
                )  # fmt: skip
            found = walked
        answers.append(_shaped(found, output, inputs, lead))
    return answers


def nested_rows(captured: Captured, inputs: Sequence[Tensor], lead: int = 0) -> list[list[Tensor]]:
    """Return the dense Jacobians ``[output][input]`` of a graph with nested tensors, which has no tape."""
    graph = captured.graph
    edges = [GradientEdge(fn, 0) for fn in graph.starts]
    answers = []
    for output, end in zip(captured.outputs, graph.ends, strict=True):
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if end is not None and output.numel():
            found = rows_one_by_one(
                [output], lambda *span, output=output: [_identity(output, *span)], output.numel(), edges
            )
        answers.append(_shaped(found, output, inputs, lead))
    return answers


def _shaped(
    found: Sequence[Tensor | None], output: Tensor, inputs: Sequence[Tensor], lead: int
) -> list[Tensor]:
    """Return all rows of an output as its Jacobians by the inputs."""
    return [
        as_batched(
            zeros((*tensor.shape[:lead], *output.shape, *tensor.shape[lead:]), tensor.dtype, tensor.device)
            if grads is None
            else samples_first(grads.reshape((*output.shape, *tensor.shape)), output.dim(), lead),
            output,
        )
        for grads, tensor in zip(found, inputs, strict=True)
    ]


def samples_first(answer: Tensor, rank: int, lead: int) -> Tensor:
    """Return an answer in one piece, the first ``lead`` dims of the input before the ``rank`` of the output."""
    if lead and rank:
        answer = answer.permute(*range(rank, rank + lead), *range(rank), *range(rank + lead, answer.dim()))
    return answer.contiguous()


def _as_rows(target: Tensor | None, output: Tensor) -> Tensor | None:
    return None if target is None else target.view(output.numel(), *target.shape[output.dim() :])


def _at_node(edge: Edge, output: Tensor, shared: bool, begin: int, end: int) -> dict[Edge, Tensor]:
    rows = _eye(output, begin, end)
    return {edge: rows if shared else as_batched(rows, output)}


def _eye(output: Tensor, begin: int, end: int) -> Tensor:
    """Return rows ``begin`` to ``end`` of the identity over the entries of an output, for all samples of a vmap."""
    rows, count = torch.eye(end - begin, dtype=output.dtype, device=output.device), output.numel()
    if end - begin < count:
        rows = torch.constant_pad_nd(rows, [begin, count - end])
    return rows.view(end - begin, *output.shape)


def _identity(output: Tensor, begin: int, end: int) -> Tensor:
    """Return rows ``begin`` to ``end`` of the identity over the entries of an output, mapped over where that is.

    A cotangent that is written into (by a write into part of a tensor) must be as batched as what is written.
    There it is made without a write in place, which transforms that trace (`linearize`) would lose.
    """
    if not inside_functorch():
        return _eye(output, begin, end)
    rows = output.new_zeros(end - begin, output.numel())
    return rows.diagonal_scatter(rows.new_ones(end - begin), begin).view(end - begin, *output.shape)
