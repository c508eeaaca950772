"""Losses: pointwise where nothing is reduced, otherwise one row that a single call on a one gives."""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Gather, Map, bare
from .._capture.tape import Node
from .call import call
from .einsum_notation import new_labels, ones, reindexing
from .pointwise import pointwise
from .registry import Local, LocalJacobian, rule


def one_row(node: Node) -> list[Local] | None:
    """Return the local Jacobian of a 0-dim output: the node called once is its only row."""
    results = call(node, [ones(node)])
    terms = []
    for k, result in enumerate(results):
        if not node.needs(k) or result is None:
            continue
        if tuple(result.shape) != node.into(k).shape:
            result = result.sum_to_size(node.into(k).shape)
        over = new_labels(result.shape)
        terms.append(Local(k, Block(result, over, (), tuple(map(bare, over)))))
    return terms


@rule("DistBackward0")
def dist(node: Node) -> list[Local] | None:
    """Distance of two tensors: out = ‖x − y‖, ∂out/∂x[i] = node(1)[i]."""
    return one_row(node)


#: The nodes of losses of each entry, which may have been averaged or summed
POINTWISE_LOSSES = [
    "MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0", "BinaryCrossEntropyBackward0",
    "BinaryCrossEntropyWithLogitsBackward0", "SoftMarginLossBackward0",
]  # fmt: skip


@rule(*POINTWISE_LOSSES)
def pointwise_loss(node: Node) -> LocalJacobian | list[Local] | None:
    """A loss of each entry, kept (reduction 0), averaged (1) or summed (2): out[i] or out = ℓ(x[i], y[i])."""
    return pointwise(node) if node.saved("reduction") == 0 else one_row(node)


@rule("MultiMarginLossBackward0", "MultilabelMarginLossBackward0")
def row_loss(node: Node) -> LocalJacobian | list[Local] | None:
    """A loss of each row of scores: the rows pass, or are averaged or summed."""
    return LocalJacobian(batch_dims={0: ((0, 0),)}) if node.shape else one_row(node)


@reindexing(
    "NllLossBackward0", "NllLoss2DBackward0",
    transposes=("NllLossBackwardBackward0", "NllLoss2DBackwardBackward0"), any_dtype=False, selects=True,
)  # fmt: skip
def nll_loss(node: Node, *_: object) -> Block:
    """Negative log likelihood: out[b, …] = −w[t] x[b, t, …], t = target[b, …], or the mean or sum of those.

    An entry that is ignored drops whatever arrives there. The backward is linear in the cotangent.

    Example: x (B, C): ∂out/∂x has B·C entries of which B are not zero: B values and B positions here.
    """
    target, weight = node.saved("target"), node.saved("weight")
    seen = target != node.saved("ignore_index")
    target = torch.where(seen, target, 0)
    value = -seen.to(node.outputs[0].dtype) if weight is None else -weight[target] * seen
    if node.saved("reduction") == 1:
        value = torch.where(
            seen, value / -value.sum(), 0
        )  # the mean over none is not differentiable: 0, as in PyTorch
    over = new_labels(target.shape)
    classes: Map = Gather(target, over)
    wrt = (*map(bare, over[:1]), classes, *map(bare, over[1:]))
    return Block(value, over, () if node.saved("reduction") else tuple(map(bare, over)), wrt)


@rule("CtcLossBackward0", "CtcLossBackward1")
def ctc_loss(node: Node) -> LocalJacobian | None:
    """Connectionist temporal classification: out[b] of log_probs[:, b, :]; the batch passes."""
    return LocalJacobian(batch_dims={0: ((0, 1),)}) if len(node.into(0).shape) == 3 else None
