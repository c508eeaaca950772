"""Rows reduced in groups: each entry counts towards one output entry, that of the group it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .call import call
from .einsum_notation import new_labels, ones
from .registry import Local, LocalJacobian, rule


def _group(starts: Tensor, count: int, groups: int) -> Tensor:
    """Return the group of each of ``count`` positions, groups being consecutive and some perhaps empty."""
    at = torch.arange(count, device=starts.device).expand(*starts.shape[:-1], count).contiguous()
    return (torch.searchsorted(starts.contiguous(), at, right=True) - 1).clamp(0, max(groups - 1, 0))


@rule("SegmentReduceBackward0")
def segment_reduce(node: Node) -> list[Local]:
    """Sum, mean, maximum, … of segments along a dim: ∂out[s(i), j]/∂x[i, j] = node(1)[i, j]."""
    value = call(node, [ones(node)])[0]
    axis, shape = node.saved("axis"), node.into(0).shape
    if value is None:
        return []
    starts, lengths = node.saved("offsets"), node.saved("lengths")
    if starts is None:
        starts = torch.nn.functional.pad(lengths.cumsum(-1), (1, 0))
    over = new_labels(shape)
    out: list[Map] = [bare(label) for label in over]
    out[axis] = Gather(_group(starts, shape[axis], node.shape[axis]), over[: axis + 1])
    return [Local(0, Block(value, over, tuple(out), tuple(map(bare, over))), selects=True)]


@rule("EmbeddingBagBackward0")
def embedding_bag(node: Node) -> LocalJacobian | list[Local]:
    """Rows of a weight picked by index and reduced in bags b: out[b(i), d] += p[i] weight[index[i], d].

    ∂out[b(i),d]/∂weight[index[i],d] = p[i], or 1 / |b(i)| in a mean      ∂out[b(i),d]/∂p[i] = weight[index[i],d]

    The padding row counts in no bag; of a maximum, out[b, d] = weight[largest[b, d], d].

    Example: n indices, D features: ∂out/∂weight has n·D entries that are not zero; n numbers and 2n positions here.
    """
    if node.saved("scale_grad_by_freq"):  # no derivative, but what autograd gives
        return LocalJacobian(batch_dims={k: ((1, 1),) if k == 0 else () for k in range(2) if node.needs(k)})
    index, sizes = node.saved("indices"), node.saved("result2")
    bag, feature = new_labels(node.shape)
    dtype = node.outputs[0].dtype
    if node.saved("mode") == 2:
        row = Gather(node.saved("result3"), (bag, feature))
        block = Block((sizes > 0).to(dtype), (bag,), (bare(bag), bare(feature)), (row, bare(feature)))
        return [Local(0, block, selects=True)]
    if not index.numel():
        return []
    item = Label(index.numel())
    into = _group(node.saved("offsets").to(torch.int64), item.size, bag.size)
    seen = (index != node.saved("padding_idx")).to(dtype)
    out: tuple[Map, ...] = Gather(into, (item,)), bare(feature)
    weights = node.saved("per_sample_weights")
    terms = []
    if node.needs(0):
        factor = seen if weights is None else seen * weights
        if node.saved("mode") == 1:
            factor = factor / sizes[into].clamp_min(1)
        wrt = Gather(index.to(torch.int64), (item,)), bare(feature)
        terms.append(Local(0, Block(factor, (item,), out, wrt), selects=True))
    if node.needs(1):
        value = node.saved("weight")[index] * seen.unsqueeze(1)
        terms.append(Local(1, Block(value, (item, feature), out, (bare(item),))))
    return terms
