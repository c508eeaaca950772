"""Dense Jacobians of a recorded call: by structure, by rows or by columns."""

from __future__ import annotations

from contextlib import suppress
from math import prod

import torch
from torch import Tensor

from .._accumulate.by_order import accumulate_best
from .._accumulate.candidates import ROWS, Candidate, candidates, first_choice, order_of, rows_are_slower
from .._accumulate.dense_columns import dense_columns
from .._accumulate.dense_rows import Targets, dense_rows, nested_rows, samples_first
from .._accumulate.forward import accumulate_forward, goes_forward
from .._accumulate.ownership import all_borrowed
from .._accumulate.planned import planned
from .._accumulate.seeds import Limits, RowsTooWideError
from .._answers.per_sample import dense_by_samples
from .._blocks.block import Block
from .._blocks.cost import rows_budget
from .._blocks.tracing import inside_functorch, is_tracing
from .._blocks.write import dense
from .._capture.capture import as_batched
from .._capture.once_differentiable import once_pairs, only_once
from .._capture.shared_memory import memory_of
from .._capture.tape import NestedError
from .._rules.vjp_support import CANNOT_BATCH, makes_sparse, needs_own_vjp
from .call_function import Recorded, found
from .out import Outs, fill, targets
from .traced_ops import count_ops, last_op, ops_pay


def dense_jacobians(
    recorded: Recorded,
    chunk_size: int | None,
    mode: str = "auto",
    outs: Outs | None = None,
) -> list[list[Tensor]]:
    """Return the dense Jacobians ``[output][input]`` of a call, as the caller sees them, in ``outs`` if given."""

    def find(part: Recorded) -> list[list[Tensor]]:
        if outs is None:
            asked = ("dense", chunk_size, mode, part.lead)
            answers = planned(
                part.captured,
                asked,
                lambda candidate: dense_answers(part, chunk_size, mode, candidate=candidate),
                lambda calls, _: candidates(part.captured.tape, part.shapes, is_mixed(part), calls),
            )
        else:
            answers = fill(outs, dense_answers(part, chunk_size, mode, targets(outs)))
        if part.captured.records and part.captured.recorded.graph.has_functions:
            # Those that a second derivative would find constant, though the function is not.
            for (output, number), name in once_pairs(part.captured.tape).items():
                answers[output][number] = only_once(name, answers[output][number], part.inputs)
        return answers

    return found(recorded, find)


def dense_answers(
    recorded: Recorded,
    chunk_size: int | None,
    mode: str = "auto",
    into: Targets | None = None,
    candidate: Candidate | None = None,
) -> list[list[Tensor]]:
    """Return the Jacobians ``[output][input]`` as dense tensors, by a candidate or the one that a first call takes.

    They are in the dtype of the input, in mode "forward" in that of the output: what is carried last has it.
    Those that take long to write are written ``into`` the tensors given.
    """
    captured, inputs, shapes = recorded.captured, recorded.inputs, recorded.shapes
    try:
        tape, mixed = captured.tape, is_mixed(recorded)
    except NestedError:
        return _in_mode(mode, nested_rows(captured, inputs, recorded.lead), recorded)
    forward = mode == "forward" and (is_tracing() or mixed) and goes_forward(tape)
    by_engine = captured.hooked or torch.is_anomaly_enabled()
    if by_engine:
        candidate = ROWS
    elif candidate is None and not (is_tracing() or forward):
        candidate = first_choice(tape, shapes, mixed)
    way = "structure" if candidate is None or forward else candidate.name
    if way == "columns" and not mixed:
        answers = dense_columns(captured, inputs, chunk_size)
        if answers is not None:
            return [
                [samples_first(answer, len(shape), recorded.lead) for answer in row]
                for row, shape in zip(answers, shapes, strict=True)
            ]
    if way == "rows":
        try:
            return _by_rows(recorded, chunk_size, mode, into)
        except CANNOT_BATCH:
            # Inside vmap, and on a sparse cotangent, a formula may fail that a rule does without.
            careful = inside_functorch() or needs_own_vjp(tape.names) or makes_sparse(tape.names)
            if by_engine or not careful:
                raise
    # Where the walk is recorded to be walked itself, zeros must stay zeros.
    if candidate is None and not forward and (recorded.outermost or not torch.is_grad_enabled()):
        return _fewest_ops(recorded, chunk_size, mode, into)
    return _by_structure(recorded, chunk_size, mode, into, candidate, forward)


def _fewest_ops(
    recorded: Recorded, chunk_size: int | None, mode: str, into: Targets | None
) -> list[list[Tensor]]:
    """Return the Jacobians by structure, or by rows where those leave far fewer ops to compile: see `ops_pay`.

    The ops of what is not returned are dead code, which a recorded graph loses before it is compiled.
    """
    start = last_op()
    answers = _by_structure(recorded, chunk_size, mode, into, None, False)
    end = last_op()
    if start is None or end is None:
        return answers
    ops = count_ops(start, end)
    slower = rows_are_slower(recorded.captured.tape, recorded.shapes, is_mixed(recorded))
    if ops_pay(ops, len(recorded.captured.tape.nodes), slower):  # rows leave an op a node, or more
        with suppress(*CANNOT_BATCH):
            rows = _by_rows(recorded, chunk_size, mode, into)
            if ops_pay(ops, count_ops(end, last_op()), slower):
                return rows
    return answers


def _by_structure(
    recorded: Recorded,
    chunk_size: int | None,
    mode: str,
    into: Targets | None,
    candidate: Candidate | None,
    forward: bool,
) -> list[list[Tensor]]:
    """Return the Jacobians by blocks, in the order of a candidate, or by rows where those would be too wide."""
    tape, shapes = recorded.captured.tape, recorded.shapes
    in_bytes = sum([tensor.numel() * tensor.element_size() for tensor in recorded.inputs])
    limits = Limits(chunk_size, rows_budget(sum(map(prod, shapes)) * in_bytes))
    try:
        if forward:
            blocks = accumulate_forward(tape, shapes, limits)
        else:
            order = None if candidate is None else order_of(candidate, tape, shapes)
            blocks = accumulate_best(tape, shapes, limits, order=order)
    except RowsTooWideError:
        return _by_rows(recorded, chunk_size, mode, into)
    return _all_written(blocks, recorded, mode, into)


def _by_rows(
    recorded: Recorded, chunk_size: int | None, mode: str, into: Targets | None
) -> list[list[Tensor]]:
    """Return the Jacobians by rows of the identity."""
    answers = dense_rows(recorded.captured, recorded.inputs, chunk_size, into, recorded.lead)
    return _in_mode(mode, answers, recorded)


def _in_mode(mode: str, answers: list[list[Tensor]], recorded: Recorded) -> list[list[Tensor]]:
    """Return rows, in mode "forward" in the dtype of the output."""
    if mode != "forward":
        return answers
    pairs = zip(recorded.captured.outputs, answers, strict=True)
    return [[answer.to(output.device, output.dtype) for answer in row] for output, row in pairs]


def _all_written(
    found: list[list[list[Block]]], recorded: Recorded, mode: str, into: Targets | None
) -> list[list[Tensor]]:
    """Return the blocks ``[output][input]`` as dense tensors of the caller's own."""
    borrowed = all_borrowed(recorded.captured.tape)
    answers = []
    for number, (row, shape, output) in enumerate(
        zip(found, recorded.shapes, recorded.captured.outputs, strict=True)
    ):
        written = []
        for position, (blocks, tensor) in enumerate(zip(row, recorded.inputs, strict=True)):
            like = output if mode == "forward" else tensor
            target = None if into is None else into[number][position]
            if recorded.lead:
                answer = dense_by_samples(blocks, shape, tensor.shape, like, recorded.lead)
            else:
                answer = dense(blocks, shape, tensor.shape, like, target)
            if memory_of(answer) in borrowed:  # it is all of a block
                answer = answer.clone()
            written.append(as_batched(answer, output))
        answers.append(written)
    return answers


def is_mixed(recorded: Recorded) -> bool:
    """Return whether rows, in the dtype of the input, and columns, in that of the output, differ in precision."""
    return len({tensor.dtype for tensor in (*recorded.inputs, *recorded.captured.outputs)}) > 1
