"""Normalisations: the input by seeds along the normalised dims, weight and bias explicitly."""

from __future__ import annotations

from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import bare
from .._capture.tape import Node
from .call import call
from .registry import Known, Local, Passes, rule
from .spell import new_labels, ones


def _normalised(node: Node) -> Tensor:
    return (node.saved("input") - node.saved("result1")) * node.saved("result2")


@rule("NativeLayerNormBackward0")
def layer_norm(node: Node) -> Known:
    """Layer norm: out[b, j] = w[j] x̂[b, j] + c[j], x̂ normalised over j.

    ∂out[b,j]/∂w[j′] = δ[j,j′] x̂[b,j]      ∂out[b,j]/∂c[j′] = δ[j,j′]      the rows b of x pass
    """
    over = new_labels(node.shape)
    lead = len(over) - len(node.saved("normalized_shape"))
    out, inner = tuple(map(bare, over)), tuple(map(bare, over[lead:]))
    terms = []
    if node.needs(1):
        terms.append(Local(1, Block(_normalised(node), over, out, inner)))
    if node.needs(2):
        terms.append(Local(2, Block(1.0, (), out, inner)))
    return Known(terms, {0: tuple((d, d) for d in range(lead))} if node.needs(0) else {})


@rule("FusedRmsNormBackward0")
def rms_norm(node: Node) -> Known:
    """RMS norm: out[b, j] = w[j] x[b, j] / rms(x[b]); the rows b of x pass."""
    over = new_labels(node.shape)
    lead = len(over) - len(node.saved("normalized_shape"))
    terms = []
    if node.needs(1):
        value = node.saved("input") * node.saved("result1")
        terms.append(Local(1, Block(value, over, tuple(map(bare, over)), tuple(map(bare, over[lead:])))))
    return Known(terms, {0: tuple((d, d) for d in range(lead))} if node.needs(0) else {})


@rule("NativeBatchNormBackward0")
def batch_norm(node: Node) -> Known:
    """Batch norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c].

    In evaluation the statistics are constants and x̂ is pointwise in x; in training each channel passes.
    """
    over = new_labels(node.shape)
    out, channel = tuple(map(bare, over)), (bare(over[1]),)
    each = [1, -1] + [1] * (len(over) - 2)
    terms: list[Local] = []
    passes: dict[int, Passes] = {}
    training = node.saved("training")
    if node.needs(0) and training:
        passes[0] = ((1, 1),)
    elif node.needs(0):
        value = call(node, [ones(node), *[None] * (len(node.outputs) - 1)])[0]
        terms.append(Local(0, Block(value, over, out, out)))
    if node.needs(1):
        if training:
            mean, scale = node.saved("result1"), node.saved("result2")
        else:
            mean = node.saved("running_mean")
            scale = (node.saved("running_var") + node.saved("eps")).rsqrt()
        value = (node.saved("input") - mean.view(each)) * scale.view(each)
        terms.append(Local(1, Block(value, over, out, channel)))
    if node.needs(2):
        terms.append(Local(2, Block(1.0, (), out, channel)))
    return Known(terms, passes)


@rule("NativeGroupNormBackward0")
def group_norm(node: Node) -> Known:
    """Group norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c]; the batch passes for x."""
    over = new_labels(node.shape)
    out, channel = tuple(map(bare, over)), (bare(over[1]),)
    terms = []
    if node.needs(1):
        batch, groups = node.saved("N"), node.saved("group")
        x = node.saved("input").reshape(batch, groups, -1)
        mean, scale = node.saved("result1"), node.saved("result2")
        value = (x - mean.view(batch, groups, 1)) * scale.view(batch, groups, 1)
        terms.append(Local(1, Block(value.reshape(node.shape), over, out, channel)))
    if node.needs(2):
        terms.append(Local(2, Block(1.0, (), out, channel)))
    return Known(terms, {0: ((0, 0),)} if node.needs(0) else {})
