"""Normalisations: the input by seeds along the normalised dims, weight and bias explicitly.

The explicit term of a weight is the normalised input, made of statistics that the op saved. They carry no
graph, so where one is recorded (for a second derivative) the weight is found by seeds too.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Map, bare
from .._capture.tape import Node
from .call import call
from .registry import Known, Local, Passes, rule
from .spell import new_labels, ones


class _Affine:
    """The terms of weight and bias of out = w[c] x̂ + d[c], ``c`` being some dims of the output."""

    def __init__(self, node: Node, dims: range) -> None:
        self.node, self.dims = node, dims
        self.over = new_labels(node.shape)
        self.out: tuple[Map, ...] = tuple(map(bare, self.over))
        self.channel = tuple(self.out[dim] for dim in dims)
        self.terms: list[Local] = []
        self.passes: dict[int, Passes] = {}

    def weight(self, normalised: Tensor) -> None:
        """∂out[b,c]/∂w[c′] = δ[c,c′] x̂[b,c]."""
        self.terms.append(Local(1, Block(normalised, self.over, self.out, self.channel)))

    def weight_by_seeds(self) -> None:
        """The channels pass."""
        self.passes[1] = tuple((dim, k) for k, dim in enumerate(self.dims))

    def bias(self) -> None:
        """∂out[b,c]/∂d[c′] = δ[c,c′]."""
        if self.node.needs(2):
            self.terms.append(Local(2, Block(1.0, (), self.out, self.channel)))

    def known(self) -> Known:
        """What was found."""
        return Known(self.terms, self.passes)


@rule("NativeLayerNormBackward0")
def layer_norm(node: Node) -> Known:
    """Layer norm: out[b, j] = w[j] x̂[b, j] + c[j], x̂ normalised over j.

    ∂out[b,j]/∂w[j′] = δ[j,j′] x̂[b,j]      ∂out[b,j]/∂c[j′] = δ[j,j′]      the rows b of x pass
    """
    lead = len(node.shape) - len(node.saved("normalized_shape"))
    affine = _Affine(node, range(lead, len(node.shape)))
    if node.needs(0):
        affine.passes[0] = tuple((d, d) for d in range(lead))
    if node.needs(1) and torch.is_grad_enabled():
        affine.weight_by_seeds()
    elif node.needs(1):
        affine.weight((node.saved("input") - node.saved("result1")) * node.saved("result2"))
    affine.bias()
    return affine.known()


@rule("FusedRmsNormBackward0")
def rms_norm(node: Node) -> Known:
    """RMS norm: out[b, j] = w[j] x[b, j] / rms(x[b]); the rows b of x pass."""
    lead = len(node.shape) - len(node.saved("normalized_shape"))
    affine = _Affine(node, range(lead, len(node.shape)))
    if node.needs(0):
        affine.passes[0] = tuple((d, d) for d in range(lead))
    if node.needs(1) and torch.is_grad_enabled():
        affine.weight_by_seeds()
    elif node.needs(1):
        affine.weight(node.saved("input") * node.saved("result1"))
    return affine.known()


@rule(
    "NativeBatchNormBackward0", "NativeBatchNormLegitBackward0", "NativeBatchNormLegitBackward1",
    "BatchNormWithUpdateBackward0",
)  # fmt: skip
def batch_norm(node: Node) -> Known:
    """Batch norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c].

    In evaluation the statistics are constants and x̂ is pointwise in x; in training each channel passes.
    """
    affine = _Affine(node, range(1, 2))
    training = node.name.startswith("BatchNormWithUpdate") or node.saved("training")
    if node.needs(0) and training:
        affine.passes[0] = ((1, 1),)
    elif node.needs(0):
        (factor, *_) = call(node, [ones(node)] + [None] * (len(node.outputs) - 1))
        affine.terms.append(Local(0, Block(factor, affine.over, affine.out, affine.out)))
    if node.needs(1) and training and torch.is_grad_enabled():
        affine.weight_by_seeds()
    elif node.needs(1):
        each = [1, -1] + [1] * (len(node.shape) - 2)
        if training:
            mean, scale = node.saved("result1"), node.saved("result2")
        else:
            mean = node.saved("running_mean")
            scale = (node.saved("running_var") + node.saved("eps")).rsqrt()
        affine.weight((node.saved("input") - mean.view(each)) * scale.view(each))
    affine.bias()
    return affine.known()


@rule("NativeGroupNormBackward0")
def group_norm(node: Node) -> Known:
    """Group norm: out[b, c, …] = w[c] x̂[b, c, …] + d[c]; the batch passes for x."""
    affine = _Affine(node, range(1, 2))
    if node.needs(0):
        affine.passes[0] = ((0, 0),)
    if node.needs(1) and torch.is_grad_enabled():
        affine.weight_by_seeds()
    elif node.needs(1):
        batch, groups = node.saved("N"), node.saved("group")
        x = node.saved("input").reshape(batch, groups, prod(node.shape[1:]) // groups)
        mean, scale = node.saved("result1"), node.saved("result2")
        value = (x - mean.view(batch, groups, 1)) * scale.view(batch, groups, 1)
        affine.weight(value.reshape(node.shape))
    affine.bias()
    return affine.known()
