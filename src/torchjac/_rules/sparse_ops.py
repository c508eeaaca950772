"""Ops on the stored entries of sparse tensors: sums, softmax along a dim, and a dense tensor read where a mask stores.

As in `sparse` an entry is named as that of the dense tensor; what is not stored has no derivative, as PyTorch has it.
"""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Gather, Label
from .._blocks.tracing import is_known
from .._capture.tape import Node
from .registry import Local, rule
from .sparse import stored


@rule("SparseSumBackward0", any_dtype=True)
def sparse_sum(node: Node) -> list[Local]:
    """A sum along dims of a sparse tensor: ∂out[i]/∂x[i′,j] = δ[i,i′] where x stores an entry."""
    _, places = stored(node.saved("self").detach().coalesce())
    summed = {dim % len(places) for dim in node.saved("dim")}
    out = tuple([map_ for dim, map_ in enumerate(places) if dim not in summed])
    return [Local(0, Block(1.0, (), out, places))]


@rule("SparseMaskBackward0", any_dtype=True)
def sparse_mask(node: Node) -> list[Local]:
    """A tensor where a mask stores an entry: out[at[e]] = x[at[e]]."""
    _, places = stored(node.saved("mask").detach().coalesce())
    return [Local(0, Block(1.0, (), places, places))]


@rule("SparseSoftmaxBackward0", "SparseLogSoftmaxBackward0")
def sparse_softmax(node: Node) -> list[Local] | None:
    """Softmax of the entries that are stored along a dim: those that differ in its position alone are one group.

    ∂out[e]/∂x[f] = out[e] (δ[e,f] − out[f]) for e and f of one group; of the logarithm δ[e,f] − exp out[f]

    Example: rows with 3 of 1,000 entries: 9 numbers for each row.
    """
    result = node.saved("result").coalesce()
    values, at = result.values(), result.indices()
    dim = node.saved("dim")
    if result.dense_dim() or not is_known(at):
        return None
    group = torch.zeros_like(at[0])
    for other, size in enumerate(result.shape):
        group = group if other == dim else group * size + at[other]
    order = group.argsort(stable=True)
    _, counts = group[order].unique_consecutive(return_counts=True)
    each = counts.repeat_interleave(counts)  # as many partners as its group has
    first = torch.arange(len(order), device=at.device).repeat_interleave(each)
    begin = (counts.cumsum(0) - counts).repeat_interleave(counts).repeat_interleave(each)
    begin = (
        begin + torch.arange(len(first), device=at.device) - (each.cumsum(0) - each).repeat_interleave(each)
    )
    e, f = order[first], order[begin]
    same = (e == f).to(values.dtype)
    logarithm = node.name == "SparseLogSoftmaxBackward0"
    value = same - values[f].exp() if logarithm else values[e] * (same - values[f])
    pair = Label(len(e))
    out, wrt = (tuple([Gather(row[which], (pair,)) for row in at]) for which in (e, f))
    return [Local(0, Block(value, (pair,), out, wrt))]
