"""The saved tensors of a normalisation, read as one formula: out = w x̂ + d with x̂ = (x − μ) r.

Let x be seen in a shape in which N entries are normalised together along some dims, and w not vary along some:

    μ = mean x      r = (mean (x − μ)² + ε)^(−½)
    D h = (∂x̂/∂x)ᵀ h = r (h − mean h − x̂ mean(x̂ h)), a symmetric map

Where the statistics are constants, as a batch norm's are in evaluation, D h is r h.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._capture.tape import Node

Shape: TypeAlias = tuple[int, ...]


class Norm(NamedTuple):
    """A normalisation, x seen in a shape of its own.

    Attributes:
        view: that shape.
        channel: the shape of w in it, 1 where w does not vary.
        over: the dims normalised together, counted from the end; none where the statistics are constants.
        unit: x̂.
        scale: r.
        weight: w, if there is one.
    """

    view: Shape
    channel: Shape
    over: Shape
    unit: Tensor
    scale: Tensor
    weight: Tensor | None

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of what is normalised together."""
        return value.mean(self.over, keepdim=True)

    def down(self, h: Tensor) -> Tensor:
        """D h."""
        if self.over:
            h = torch.addcmul(h - self.mean(h), self.unit, self.mean(self.unit * h), value=-1)
        return h * self.scale

    def mixed(self, unit: Tensor) -> Tensor:
        """Return D / r as matrices, of x̂ seen in a shape whose last dim holds what is normalised together."""
        n = unit.shape[-1]
        mixed = torch.eye(n, dtype=unit.dtype, device=unit.device) - 1 / n
        return mixed - unit.unsqueeze(-1) * (unit / n).unsqueeze(-2)

    def weighted(self, value: Tensor) -> Tensor:
        """Return the product with w."""
        return value if self.weight is None else value * self.weight

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum over what w does not vary along."""
        return value.sum([k - len(self.channel) for k, size in enumerate(self.channel) if size == 1], True)


def _norm(
    node: Node, view: Shape, channel: Shape, over: Shape, each: Shape, mean: Tensor, scale: Tensor
) -> Norm:
    """Return the normalisation of what a node saved, ``each`` being the shape of its statistics; not in half precision.

    Where a graph is recorded they are made from x again, as what was saved has none.
    """
    dtype = torch.promote_types(scale.dtype, torch.float32)
    mean, scale = mean.reshape(each).to(dtype), scale.reshape(each).to(dtype)
    x, weight = node.saved("input").reshape(view).to(dtype), node.saved("weight")
    if weight is not None:
        weight = weight.reshape(channel)
    if not (over and torch.is_grad_enabled()):
        return Norm(view, channel, over, (x - mean) * scale, scale, weight)
    around = x - x.mean(over, keepdim=True)
    variance = around.square().mean(over, keepdim=True)
    scale = (variance + (scale.pow(-2) - variance).detach()).rsqrt()  # ε, which is not always saved
    return Norm(view, channel, over, around * scale, scale, weight)


def _layer(node: Node, mean: str, scale: str) -> Norm:
    """Rows, each normalised; w varies along a row."""
    shape, own = node.saved("input").shape, node.saved("normalized_shape")
    rows, n = prod(shape[: len(shape) - len(own)]), prod(own)
    return _norm(node, (rows, n), (1, n), (-1,), (rows, 1), node.saved(mean), node.saved(scale))


def _batch(node: Node, mean: str, scale: str, training: bool) -> Norm:
    """Samples, channels, positions; each channel normalised, w varies along channels."""
    samples, channels, *rest = node.saved("input").shape
    view, each = (samples, channels, prod(rest)), (1, channels, 1)
    if training:
        return _norm(node, view, each, (-3, -1), each, node.saved(mean), node.saved(scale))
    known = (node.saved("running_var") + node.saved("eps")).rsqrt()
    return _norm(node, view, each, (), each, node.saved("running_mean"), known)


def _group(node: Node) -> Norm:
    """Samples, groups, channels of a group, positions; each group of a sample normalised."""
    samples, groups = node.saved("N"), node.saved("group")
    inner = node.saved("C") // groups
    view, channel, each = (
        (samples, groups, inner, node.saved("HxW")), (1, groups, inner, 1), (samples, groups, 1, 1),
    )  # fmt: skip
    return _norm(node, view, channel, (-2, -1), each, node.saved("result1"), node.saved("result2"))


def is_training(node: Node) -> bool:
    """Return whether a batch norm's statistics are those of x."""
    return node.name.startswith("BatchNormWithUpdate") or bool(node.saved("training"))


#: The nodes of normalisations, and how each is read
FIRST: dict[str, Callable[[Node], Norm]] = {
    "NativeLayerNormBackward0": lambda node: _layer(node, "result1", "result2"),
    "NativeGroupNormBackward0": _group,
    **dict.fromkeys(
        (
            "NativeBatchNormBackward0", "NativeBatchNormLegitBackward0", "NativeBatchNormLegitBackward1",
            "BatchNormWithUpdateBackward0",
        ),
        lambda node: _batch(node, "result1", "result2", is_training(node)),
    ),
}  # fmt: skip


class Second(NamedTuple):
    """The backward of a normalisation: how its node is read, whose inputs are g, x and, at ``weight``, w."""

    norm: Callable[[Node], Norm]
    weight: int


#: The nodes of the backward formulas of normalisations
SECOND: dict[str, Second] = {
    "NativeLayerNormBackwardBackward0": Second(lambda node: _layer(node, "mean", "rstd"), 4),
    "NativeBatchNormBackwardBackward0": Second(
        lambda node: _batch(node, "save_mean", "save_invstd", node.saved("train")), 2
    ),
    "BatchNormBackwardBackward0": Second(
        lambda node: _batch(node, "save_mean", "save_var", node.saved("update")), 2
    ),
}
