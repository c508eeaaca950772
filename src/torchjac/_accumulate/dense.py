"""The dense way: PyTorch's own engine on rows of the identity, one batched call for each chunk of rows.

It is what is left where structure cannot pay, and what is asked where something rides on the engine itself
(tensor hooks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.zeros import zeros
from .._capture.capture import Captured
from .._rules.unbatched import runs_batched
from .plan import rows_at_once
from .rows import pull_rows

Pull: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], tuple[int, ...]], list[Tensor]]

#: Up to this many rows, calling the engine once for each costs less than one call under vmap does.
FEW_ROWS = 2


def dense_rows(captured: Captured, inputs: Sequence[Tensor], chunk: int | None) -> list[list[Tensor]]:
    """The dense Jacobians ``[output][input]``, by pushing rows of the identity through the whole graph."""
    tape = captured.tape
    live = [k for k, end in enumerate(tape.outputs) if end is not None]
    outputs = [captured.outputs[k] for k in live]
    edges = [GradientEdge(node.fn, 0) for node in tape.inputs]
    counts = [output.numel() for output in outputs]

    def pull(of: Sequence[Tensor], cotangents: Sequence[Tensor], batch: tuple[int, ...]) -> list[Tensor]:
        found = pull_rows(of, cotangents, edges, batched=bool(batch))
        return [
            zeros(batch + tensor.shape, tensor.dtype, tensor.device) if grad is None else grad
            for grad, tensor in zip(found, inputs, strict=True)
        ]

    total = sum(counts)
    if total > FEW_ROWS and all(map(runs_batched, tape.nodes)):
        try:
            rows = _batched(pull, outputs, counts, chunk or rows_at_once(tape.nodes, total))
        except (RuntimeError, TypeError, NotImplementedError, ValueError):
            # No batching rule, or a Function that leaves PyTorch; an error of the user's own shows itself again.
            rows = _one_by_one(pull, outputs)
    else:
        rows = _one_by_one(pull, outputs)
    answers = []
    where = dict(zip(live, _starts(counts), strict=True))
    for number, output in enumerate(captured.outputs):
        shape, start = tuple(output.shape), where.get(number)
        answers.append([
            zeros((*shape, *tensor.shape), tensor.dtype, tensor.device)
            if start is None or not rows
            else rows[k][start : start + prod(shape)].reshape((*shape, *tensor.shape))
            for k, tensor in enumerate(inputs)
        ])  # fmt: skip
    return answers


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]


def _batched(pull: Pull, outputs: Sequence[Tensor], counts: Sequence[int], size: int) -> list[Tensor]:
    parts = []
    for begin in range(0, sum(counts), size):
        end = min(begin + size, sum(counts))
        parts.append(pull(outputs, _basis(outputs, counts, begin, end), (end - begin,)))
    return parts[0] if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]


def _basis(outputs: Sequence[Tensor], counts: Sequence[int], begin: int, end: int) -> list[Tensor]:
    """Rows ``begin`` to ``end`` of the identity over all outputs, cut into the outputs."""
    basis = []
    for output, start, count in zip(outputs, _starts(counts), counts, strict=True):
        rows = torch.zeros(end - begin, count, dtype=output.dtype, device=output.device)
        if start < end and begin < start + count:  # row r asks for entry r + begin - start of this output
            rows.diagonal(begin - start).fill_(1)
        basis.append(rows.view(end - begin, *output.shape))
    return basis


def _one_by_one(pull: Pull, outputs: Sequence[Tensor]) -> list[Tensor]:
    rows = []
    for output in outputs:
        seed = torch.zeros(output.numel(), dtype=output.dtype, device=output.device)
        for position in range(output.numel()):
            seed[position] = 1
            rows.append(pull((output,), (seed.view(output.shape).clone(),), ()))
            seed[position] = 0
    return [torch.stack(column) for column in zip(*rows, strict=True)]
