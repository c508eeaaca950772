"""Recurrent layers in one kernel, and the packing of sequences of several lengths that goes with them."""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import BatchDims, Local, LocalJacobian, rule


@rule("MkldnnRnnLayerBackward0", kind="mixing")
def rnn_layer(node: Node) -> LocalJacobian:
    """One layer of an LSTM: out[t, b] of x[≤ t, b], and its last state h[b], c[b]; the batch passes.

    The weights see all of it.
    """
    state: dict[int, BatchDims] = {k: () for k in range(1, 5) if node.needs(k)}
    batch_of = {0: 1, 5: 0, 6: 0}  # the input of all steps, the first state of one

    def batch_dims(dim: int) -> dict[int, BatchDims]:
        return state | {k: ((dim, into),) for k, into in batch_of.items() if node.needs(k)}

    return LocalJacobian(batch_dims=batch_dims(1), others={1: batch_dims(0), 2: batch_dims(0)})


@rule("PackPaddedSequenceBackward0", any_dtype=True, kind="mixing")
def pack_padded_sequence(node: Node) -> list[Local]:
    """Sequences b of falling lengths, step by step: out[r] = x[t(r), b(r)], as many b at t as are that long."""
    sizes = node.saved("result1")
    most = int(sizes.max())
    here = torch.arange(most, device="cpu") < sizes.unsqueeze(1)
    step, sequence = (table.to(node.outputs[0].device) for table in here.nonzero(as_tuple=True))
    row = Label(node.shape[0])
    rest = tuple(map(bare, new_labels(node.shape[1:])))
    at: tuple[Map, ...] = Gather(step, (row,)), Gather(sequence, (row,))
    if node.saved("batch_first"):
        at = at[::-1]
    return [Local(0, Block(1.0, (), (bare(row), *rest), (*at, *rest)))]
