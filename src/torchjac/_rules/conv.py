"""Convolutions: image by image for the input, output channel by output channel for the weight."""

from __future__ import annotations

from .._blocks.block import Block
from .._blocks.maps import bare
from .._capture.tape import Node
from .registry import Known, Local, Passes, rule
from .spell import new_labels


@rule("ConvolutionBackward0", "CudnnConvolutionBackward0", "MiopenConvolutionBackward0")
def convolution(node: Node) -> Known:
    """Convolution: out[b, c] = Σ weight[c, i] ⋆ x[b, i] + bias[c].

    The batch passes for x, the output channel for the weight, ∂out[b,c,…]/∂bias[c′] = δ[c,c′].
    """
    over = new_labels(node.shape)
    passes: dict[int, Passes] = {}
    if node.needs(0):
        passes[0] = ((0, 0),)
    if node.needs(1):
        transposed = node.saved("transposed")
        if not transposed:
            passes[1] = ((1, 0),)
        else:
            passes[1] = ((1, 1),) if node.saved("groups") == 1 else ()
    terms = []
    if node.needs(2):
        terms.append(Local(2, Block(1.0, (), tuple(map(bare, over)), (bare(over[1]),))))
    return Known(terms, passes)
