"""From a recorded call to its Jacobians as operators: what every answer that is not dense begins with."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from .._accumulate.by_order import accumulate_best
from .._accumulate.candidates import Candidate
from .._accumulate.factors import Factor, ProgramKey, accumulate_factors, alone
from .._accumulate.forward import accumulate_forward, goes_forward
from .._accumulate.ownership import all_borrowed, owned
from .._accumulate.planned import planned
from .._accumulate.report import Report, Step
from .._accumulate.reverse import accumulate
from .._accumulate.sample_rows import Factors, candidates_by_sample, read_from_rows
from .._accumulate.seeds import Limits
from .._answers.factored import chained
from .._answers.forms import Form, SumOfBlocks
from .._answers.operator import Jacobian
from .._answers.per_sample import per_sample
from .._blocks.block import Block, fitted
from .._blocks.block_views import in_triangle
from .._blocks.by_sample import in_one_by_sample
from .._blocks.tracing import is_tracing
from .._capture.capture import Captured
from .._capture.once_differentiable import once_pairs, only_once
from .._plan.recorder import recorder
from .call_function import Recorded, found

#: The layout of an answer that is not written out
OPERATOR: Final = "operator"

#: The layouts of tensors that an answer can have
LAYOUTS = (torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr)

#: What an answer can be asked for as
Layout: TypeAlias = "torch.layout | Literal['operator']"


def operators(
    recorded: Recorded,
    what: str,
    chunk_size: int | None = None,
    mode: str = "auto",
    triangle: str | None = None,
) -> list[list[Jacobian]]:
    """Return the Jacobians ``[output][input]``; ``what`` names the transform in errors.

    Blocks wholly outside of a ``triangle`` are left out: a program that is known does not compute their values.

    Raises:
        RuntimeError: where the function registers hooks that act on gradients.
    """
    check_hooks(recorded, what)
    report = Report()
    limits = Limits(chunk_size)
    return found(recorded, lambda part: _operators(part, limits, report, mode, triangle), per_sample)


def check_hooks(recorded: Recorded, what: str) -> None:
    """Raise where the function registers hooks that act on gradients."""
    if recorded.captured.hooked:
        raise RuntimeError(
            f"{what}: func registers hooks that act on gradients (Tensor.register_hook or a module's full "
            "backward hook), which only PyTorch's engine can run; use jacrev, which asks the engine"
        )


def _operators(
    recorded: Recorded, limits: Limits, report: Report, mode: str, triangle: str | None
) -> list[list[Jacobian]]:
    captured, inputs = recorded.captured, recorded.inputs
    asked = ("operators", limits, mode, recorded.is_part, triangle)
    factors, steps = planned(
        captured,
        asked,
        lambda candidate: _walked(recorded, limits, mode, triangle, candidate),
        lambda _, known: candidates_by_sample(captured, known and known[0]),
    )
    report.steps += steps
    for (output, number), name in _marked(captured).items():
        factors[output][number] = [
            factor._replace(blocks=[_once(block, name, inputs) for block in factor.blocks])
            for factor in factors[output][number]
        ]

    return [
        [Jacobian(form_of(row, tensor), report) for row, tensor in zip(rows, inputs, strict=True)]
        for rows in factors
    ]


def _walked(
    recorded: Recorded, limits: Limits, mode: str, triangle: str | None, candidate: Candidate | None
) -> tuple[Factors, tuple[Step, ...]]:
    """Return the factors of a call, those of a batch by samples where that pays, read from rows if a program is."""
    factors, steps = walked(recorded, limits, mode, triangle)
    if mode != "auto" or recorded.is_part or recorded.walks_recorded or is_tracing():
        return factors, steps
    for row in factors:
        for pair, tensor in zip(row, recorded.inputs, strict=True):
            if len(pair) == 1:
                (only,) = pair
                blocks = in_one_by_sample(only.blocks, only.out_shape, only.in_shape, tensor)
                pair[0] = only._replace(blocks=blocks)
    if candidate is not None and candidate.name == "samples" and recorder() is not None:
        factors = read_from_rows(recorded.captured, recorded.inputs, factors, limits.chunk)
    return factors, steps


def walked(
    recorded: Recorded, limits: Limits, mode: str, triangle: str | None
) -> tuple[list[list[list[Factor]]], tuple[Step, ...]]:
    """Return the factors ``[output][input]`` of a call, none with a tensor of the caller's, and how they were found.

    Blocks wholly outside of a ``triangle`` are left out.
    """
    report = Report()
    tape, shapes, inputs = recorded.captured.tape, recorded.shapes, recorded.inputs
    if mode == "auto" and not recorded.is_part:
        factors = accumulate_factors(tape, shapes, limits, report)
    else:  # batch dims are known at both ends of a Jacobian, but not between its factors
        walk = accumulate_best if mode == "auto" else accumulate
        if mode == "forward" and goes_forward(tape):
            walk = accumulate_forward
        factors = alone(tape, shapes, walk(tape, shapes, limits, report))

    if triangle is not None:
        factors = [[_in_triangle(row, triangle) for row in rows] for rows in factors]
    borrowed = all_borrowed(tape)

    def own(factor: Factor, like: Tensor) -> Factor:
        blocks = [fitted(block, like.dtype, like.device) for block in owned(factor.blocks, borrowed)]
        return factor._replace(blocks=[_cut(block, recorded) for block in blocks], key=ProgramKey())

    return [
        [[own(factor, tensor) for factor in row] for row, tensor in zip(rows, inputs, strict=True)]
        for rows in factors
    ], tuple(report.steps)


def form_of(factors: list[Factor], like: Tensor) -> Form:
    """Return the product of factors as the form of an answer."""
    return chained(
        [
            SumOfBlocks(
                factor.out_shape, factor.in_shape, like.dtype, like.device, tuple(factor.blocks), factor.key
            )
            for factor in factors
        ]
    )


def _in_triangle(factors: list[Factor], triangle: str) -> list[Factor]:
    if len(factors) > 1:  # the product of factors is multiplied out where it is written
        return factors
    return [
        factor._replace(blocks=in_triangle(factor.blocks, factor.out_shape, factor.in_shape, triangle)[0])
        for factor in factors
    ]


def _marked(captured: Captured) -> dict[tuple[int, int], str]:
    may = captured.records and captured.recorded.graph.has_functions
    return once_pairs(captured.tape) if may else {}


def _cut(block: Block, recorded: Recorded) -> Block:
    return block._replace(value=recorded.cut(block.value)) if isinstance(block.value, Tensor) else block


def check_layout(layout: Layout, what: str) -> None:
    """Raise unless the layout is one that an answer can be written in; a Hessian's may be an operator."""
    operator, also = ((OPERATOR,), ' (or "operator")') if what == "hessian" else ((), "")
    if layout not in (*LAYOUTS, *operator):
        hint = "; jacobian gives the operator" if layout == OPERATOR else ""
        raise ValueError(
            f"{what}: layout must be torch.strided, sparse_coo, sparse_csr, sparse_csc or sparse_bsr{also}, "
            f"got {layout!r}{hint}"
        )


def _once(block: Block, name: str, inputs: list[Tensor]) -> Block:
    value = block.value
    return block._replace(value=only_once(name, value, inputs)) if isinstance(value, Tensor) else block
