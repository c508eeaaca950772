"""The dense way: PyTorch's own engine on rows of the identity.

It is what is left where structure cannot pay, and what is asked where something rides on the engine itself
(hooks).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._blocks.zeros import zeros
from .._capture.capture import Captured
from .rows import pull_rows


def dense_rows(captured: Captured, inputs: Sequence[Tensor], chunk: int | None) -> list[list[Tensor]]:
    """The dense Jacobians ``[output][input]``, by pushing rows of the identity through the whole graph.

    Outputs are taken one after another: a zero cotangent at another output could still meet an infinite
    factor and give NaN.
    """
    tape = captured.tape
    edges = [GradientEdge(node.fn, 0) for node in tape.inputs]
    answers = []
    for output, end in zip(captured.outputs, tape.outputs, strict=True):
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if end is not None and output.numel():
            found = pull_rows(
                [output], lambda *span, output=output: [_identity(output, *span)],
                output.numel(), edges, tape.nodes, chunk,
            )  # fmt: skip
        answers.append([
            zeros((*output.shape, *tensor.shape), tensor.dtype, tensor.device)
            if grads is None
            else grads.reshape((*output.shape, *tensor.shape)).contiguous()
            for grads, tensor in zip(found, inputs, strict=True)
        ])  # fmt: skip
    return answers


def _identity(output: Tensor, begin: int, end: int) -> Tensor:
    """Rows ``begin`` to ``end`` of the identity over the entries of an output, mapped over where that is.

    A cotangent that is written into (by a write into part of a tensor) must be as batched as what is written.
    It is made without a write in place, which transforms that trace (`linearize`) would lose.
    """
    rows = output.new_zeros(end - begin, output.numel())
    return rows.diagonal_scatter(rows.new_ones(end - begin), begin).view(end - begin, *output.shape)
