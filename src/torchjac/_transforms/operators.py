"""From a recorded call to its Jacobians as operators: what every answer that is not dense begins with."""

from __future__ import annotations

import torch
from torch import Tensor

from .._accumulate.forward import accumulate_forward, goes_forward
from .._accumulate.ordered import accumulate_best
from .._accumulate.report import Report
from .._accumulate.reverse import accumulate
from .._accumulate.seeds import Limits
from .._answers.operator import Jacobian
from .._blocks.block import Block, fitted
from .._capture.once import once_pairs, only_once
from .run import Recorded, walking

WALKS = {"auto": accumulate_best, "reverse": accumulate, "forward": accumulate_forward}


def operators(
    recorded: Recorded, what: str, chunk_size: int | None = None, mode: str = "auto"
) -> list[list[Jacobian]]:
    """The Jacobians ``[output][input]``; ``what`` names the transform in errors.

    Raises:
        RuntimeError: where the function registers hooks that act on gradients.
    """
    captured, inputs = recorded.captured, recorded.inputs
    if captured.hooked:
        raise RuntimeError(
            f"{what}: func registers hooks that act on gradients (Tensor.register_hook or a module's full "
            "backward hook), which only PyTorch's engine can run; use jacrev, which asks the engine"
        )
    report = Report()
    walk = WALKS["reverse" if mode == "forward" and not goes_forward(captured.tape) else mode]
    with walking(recorded):
        found = walk(captured.tape, recorded.shapes, Limits(chunk_size), report)
        for (output, number), name in (once_pairs(captured.tape) if captured.records else {}).items():
            found[output][number] = [_once(block, name, inputs) for block in found[output][number]]
    return [
        [
            Jacobian(
                shape,
                tuple(tensor.shape),
                tensor.dtype,
                tensor.device,
                tuple([fitted(block, tensor.dtype, tensor.device) for block in blocks]),
                report,
            )
            for blocks, tensor in zip(row, inputs, strict=True)
        ]
        for row, shape in zip(found, recorded.shapes, strict=True)
    ]


def check_layout(layout: torch.layout, what: str) -> None:
    """Raise unless the layout is one that an answer can be written in."""
    if layout not in (torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        raise ValueError(
            f"{what}: layout must be torch.strided, sparse_coo, sparse_csr or sparse_csc, got {layout!r}"
        )


def _once(block: Block, name: str, inputs: list[Tensor]) -> Block:
    value = block.value
    return block._replace(value=only_once(name, value, inputs)) if isinstance(value, Tensor) else block
