"""Jacobians in a sparse layout, written by the program of a call, or into matrices that are there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._accumulate.planned import planned
from .._accumulate.seeds import Limits
from .._answers.frame import Frame
from .._answers.sparse import entries_of, refill
from .._blocks.tracing import is_tracing
from .call_function import Recorded, walking
from .operators import check_hooks, form_of, operators, walked
from .out import sparse_out


def sparse_jacobians(
    recorded: Recorded,
    layout: torch.layout,
    what: str,
    chunk_size: int | None,
    out: Any,
    triangle: str | None,
) -> Sequence[Sequence[Tensor]]:
    """Return the Jacobians ``[output][input]`` as sparse matrices, or a triangle of each; in ``out`` if it is given."""
    asked = f"{what} with layout={layout}"
    if out is not None:
        matrices = sparse_out(out, recorded, layout, what)
        for row, into in zip(operators(recorded, asked, chunk_size), matrices, strict=True):
            for leaf, matrix in zip(row, into, strict=True):
                refill(matrix, leaf.blocks, leaf.out_shape, leaf.in_shape, leaf, what)
        return matrices
    shapes, inputs = recorded.shapes, recorded.inputs
    if triangle is not None and (len(inputs) > 1 or any(prod(each) != inputs[0].numel() for each in shapes)):
        raise ValueError(
            f"{what}: triangle= is for a function that gives one number of one tensor; for others take "
            'layout="operator" and to_sparse(triangle=…) of the parts on the diagonal'
        )
    if recorded.beneath is not None or recorded.walks_recorded or is_tracing():
        rows = operators(recorded, asked, chunk_size, triangle=triangle)
        return [[leaf.to_sparse(layout, triangle=triangle) for leaf in row] for row in rows]
    check_hooks(recorded, asked)
    limits = Limits(chunk_size)

    def compute(_: object) -> list[list[tuple[Frame, Tensor]]]:
        factors, _steps = walked(recorded, limits, "auto", triangle)
        return [
            [
                entries_of(*form_of(each, tensor).ends, layout, what, triangle)
                for each, tensor in zip(row, inputs, strict=True)
            ]
            for row in factors
        ]

    with walking(recorded):
        found = planned(recorded.captured, ("sparse", layout, limits, triangle), compute)
    return [[frame.matrix(values, what) for frame, values in row] for row in found]
