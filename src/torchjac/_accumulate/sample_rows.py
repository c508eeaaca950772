"""Rows of a sample's Jacobian for all samples at once, where blocks have told that samples never meet.

The derivative of a sum over samples with respect to one of them is that of its own output: one cotangent serves all. So
a batched function of many small steps takes the time of dense rows of one sample, and blocks say which entries of them
are not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.by_sample import holds_samples, positions_in_sample, sample_first, sample_label
from .._blocks.tracing import is_finite
from .._capture.capture import Captured
from .._capture.tape import Edge
from .by_order import NotFiniteError
from .candidates import Candidate, by_sample
from .dense_rows import samples_first
from .engine_rows import engine_rows, walk_rows
from .factors import Factor

#: The factors ``[output][input]`` of a Jacobian
Factors: TypeAlias = list[list[list[Factor]]]

#: The walk by structure, of which nothing is estimated
STRUCTURE = Candidate("structure")


def candidates_by_sample(captured: Captured, found: Factors | None) -> list[Candidate]:
    """Return the walk by structure, and that by rows of samples where it gives what was ``found`` by structure."""
    if found is None or captured.records or not _hold_samples(found):
        return [STRUCTURE]
    read = [(number, factor) for number, row in enumerate(found) for (factor,) in row if factor.blocks]
    rows = sum([prod(captured.outputs[number].shape[1:]) for number in {number for number, _ in read}])
    return [STRUCTURE, *by_sample(captured.tape, rows, len(read))] if read else [STRUCTURE]


def _hold_samples(found: Factors) -> bool:
    """Return whether each Jacobian is nothing, or one block with a value for each of the entries of each sample."""
    return all(
        len(pair) == 1
        and (
            not pair[0].blocks
            or (len(pair[0].blocks) == 1 and holds_samples(pair[0].blocks[0], *pair[0][1:3]))
        )
        for row in found
        for pair in row
    )


def read_from_rows(
    captured: Captured, inputs: Sequence[Tensor], found: Factors, chunk: int | None
) -> Factors:
    """Return blocks with their values read from the rows of all samples.

    Where these do not hold the blocks, or hold what is not finite, they stay as they are found: a zero on the way of
    the rows may have met it, which no block does.
    """
    if not _hold_samples(found):
        return found
    tape = captured.tape
    answers = []
    try:
        for row, output, end in zip(found, captured.outputs, tape.outputs, strict=True):
            grads: Sequence[Tensor | None] = [None] * len(inputs)
            if end is not None and any(factor.blocks for (factor,) in row):
                grads = _sample_rows(captured, output, end, chunk)
            answers.append([
                [_read(factor, rows, len(output.shape) - 1)] for (factor,), rows in zip(row, grads, strict=True)
            ])  # fmt: skip
    except NotFiniteError:
        return found
    return answers


def _sample_rows(captured: Captured, output: Tensor, end: Edge, chunk: int | None) -> list[Tensor | None]:
    """Return the rows of an output's samples with respect to all inputs."""
    tape, count = captured.tape, prod(output.shape[1:])
    begin = partial(_at_node, end, output)
    found = walk_rows(begin, tape.nodes, list(tape.inputs), count, chunk)
    if found is None:
        edges = [GradientEdge(node.fn, 0) for node in tape.inputs]
        found = engine_rows([output], lambda *span: [_eye(output, *span)], count, edges, tape.nodes, chunk)
    return found


def _at_node(edge: Edge, output: Tensor, begin: int, end: int) -> dict[Edge, Tensor]:
    return {edge: _eye(output, begin, end)}


def _eye(output: Tensor, begin: int, end: int) -> Tensor:
    """Return rows ``begin`` to ``end`` of the identity over the entries of a sample, the same for all samples."""
    size, *shape = output.shape
    rows = torch.eye(prod(shape), dtype=output.dtype, device=output.device)
    if end - begin < len(rows):
        rows = rows[begin:end]
    return rows.view(end - begin, 1, *shape).expand(end - begin, size, *shape)


def _read(factor: Factor, rows: Tensor | None, rank: int) -> Factor:
    """Return a factor with the values of its block read from rows over ``rank`` dims of a sample's output.

    Raises:
        NotFiniteError: if they are not all finite.
    """
    if not factor.blocks or rows is None:
        return factor
    (block,) = factor.blocks
    label = sample_label(block, factor.out_shape, factor.in_shape)
    assert label is not None
    shape = (*factor.out_shape[1:], *factor.in_shape[1:])
    whole = samples_first(rows.reshape((*factor.out_shape[1:], *factor.in_shape)), rank, 1)
    value, at = whole.view(label.size, prod(shape)), positions_in_sample(block, shape, rows.device)
    if not at.equal(torch.arange(prod(shape), device=rows.device)):
        value = value.index_select(1, at)
    if not is_finite(value):
        raise NotFiniteError
    on = sample_first(block, label)
    return factor._replace(blocks=[block._replace(value=value.view([each.size for each in on]), on=on)])
