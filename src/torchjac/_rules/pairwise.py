"""Ops on pairs of rows, of one tensor or of two: each output entry depends on two rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .einsum_notation import broadcast, new_labels
from .registry import Local, rule
from .safe_backward import slope


@rule("PdistBackward0")
def pdist(node: Node) -> list[Local]:
    """Distances of all pairs of rows: out[k] = ‖x[i(k)] − x[j(k)]‖ for i < j.

    ∂out[k]/∂x[i′,d] = (δ[i(k),i′] − δ[j(k),i′]) ∂‖u‖/∂u[d] at u = x[i(k)] − x[j(k)]

    The formula is spelled here: that of PyTorch has no second derivative, and cannot be called on a batch.

    Example: x (n, d): ∂out/∂x has n²(n−1)d/2 entries of which n(n−1)d are not zero; half of them are stored, twice.
    """
    x, p = node.saved("self"), node.saved("p")
    if p == 0 or not node.shape[0]:
        return []
    first, second = torch.triu_indices(x.shape[0], x.shape[0], 1, device=x.device).unbind()
    gap = x[first] - x[second]
    value = slope(gap, node.saved("result").unsqueeze(1), p)
    pair, feature = Label(node.shape[0]), Label(x.shape[1])
    on, out = (pair, feature), (bare(pair),)

    def term(row: Tensor, factor: Tensor) -> Local:
        wrt: tuple[Map, ...] = Gather(row, (pair,)), bare(feature)
        return Local(0, Block(factor, on, out, wrt), selects=p not in (1, math.inf))

    return [term(first, value), term(second, -value)]


@rule("CdistBackward0", "EuclideanDistBackward0")
def cdist(node: Node) -> list[Local]:
    """Distances of the rows of two tensors: out[b,i,j] = ‖x[b,i] − y[b,j]‖, batches broadcast.

    ∂out[b,i,j]/∂x[b′,i′,d] = δ[b,b′] δ[i,i′] ∂‖u‖/∂u[d] at u = x[b,i] − y[b,j], and the negative for y

    The formula is spelled here: that of PyTorch cannot be called on a batch.

    Example: x (500, 3), y (500, 3): 750,000 of 375 million entries for each.
    """
    x, y, distance = node.saved("x1"), node.saved("x2"), node.saved("result")
    p = 2.0 if node.name.startswith("Euclidean") else node.saved("p")
    if p == 0 or not x.shape[-1]:
        return []
    value = slope(x.unsqueeze(-2) - y.unsqueeze(-3), distance.unsqueeze(-1), p)
    over = new_labels(value.shape)
    *batch, first, second, feature = over
    out = tuple(map(bare, over[:-1]))
    terms = []
    for k, (row, factor) in enumerate(((first, value), (second, -value))):
        if node.needs(k):
            wrt = broadcast((*batch, row, feature), node.into(k).shape)
            terms.append(Local(k, Block(factor, over, out, wrt), selects=p not in (1, math.inf)))
    return terms
