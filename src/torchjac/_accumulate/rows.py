"""Rows of cotangents taken the rest of the way by PyTorch's engine, a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.block import Block
from .._blocks.maps import Label, align, bare, bare_label
from .._capture.capture import inside_functorch
from .._capture.tape import Node, Tape
from .plan import rows_at_once


def pull_rows(
    edges: Sequence[Any], cotangents: Sequence[Tensor], inputs: Sequence[GradientEdge], batched: bool
) -> tuple[Tensor | None, ...]:
    """The engine once: gradients of the inputs for cotangents at some edges, for a batch of rows at once."""

    def pull(*cotangents: Tensor, batched: bool = False) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            edges,
            inputs,
            cotangents,
            retain_graph=True,
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
            is_grads_batched=batched,
        )

    if not (batched and inside_functorch()):
        return pull(*cotangents, batched=batched)
    # The engine's own batching is a vmap that cannot stand inside another (torch 2.9-2.13).
    missing: list[bool] = []

    def present(*cotangents: Tensor) -> tuple[Tensor, ...]:
        found = pull(*cotangents)
        missing[:] = [grad is None for grad in found]
        return tuple(grad for grad in found if grad is not None)

    found = iter(torch.func.vmap(present)(*cotangents))
    return tuple(None if absent else next(found) for absent in missing)


def finish_rows(
    pending: dict[tuple[Node, int], dict[int, list[Block]]],
    tape: Tape,
    rest: list[Node],
    out_shapes: Sequence[Sequence[int]],
    chunk: int | None,
) -> None:
    """Replace what waits at nodes, all dense rows, by what reaches the inputs."""
    waiting = {edge: pending.pop(edge) for edge in list(pending) if edge[0] not in tape.inputs}
    goals = list(tape.inputs)
    inputs = [GradientEdge(node.fn, 0) for node in goals]
    for output in {output for blocks in waiting.values() for output in blocks}:
        edges = [edge for edge, blocks in waiting.items() if output in blocks]
        rank, count = len(out_shapes[output]), prod(out_shapes[output])
        rows = [_rows(waiting[edge][output][0], rank, count) for edge in edges]
        starts = [GradientEdge(node.fn, slot) for node, slot in edges]
        size = chunk or rows_at_once(rest, count)
        for node in rest:
            node.calls += -(-count // size)
        parts = [
            pull_rows(starts, [part[begin : begin + size] for part in rows], inputs, batched=True)
            for begin in range(0, count, size)
        ]
        over = tuple(Label(n) for n in out_shapes[output])
        for goal, column in zip(goals, zip(*parts, strict=True), strict=True):
            if column and column[0] is not None:
                dims = tuple(Label(n) for n in goal.shape)
                value = torch.cat(column).reshape([label.size for label in over + dims])
                block = Block(value, over + dims, tuple(map(bare, over)), tuple(map(bare, dims)))
                pending.setdefault((goal, 0), {}).setdefault(output, []).append(block)


def _rows(block: Block, rank: int, count: int) -> Tensor:
    """The value of a dense block with all output dims joined in front."""
    over = tuple(bare_label(map_) for map_ in block.out + block.wrt)
    value = align(block.value, block.on, over)
    return value.reshape(count, *value.shape[rank:])


