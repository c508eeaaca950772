"""The backward formula of fused attention, made of products and a softmax: PyTorch's own has no derivative."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.tracing import is_transformed
from .._capture.tape import Node
from .._plan.price import LAUNCH, NUMBER
from .backward_overrides import BackwardFormula, Results, is_recorded, register, shaped
from .products_of_rows import times

#: The calls of the formula below, and how many of them pass over the scores
CALLS, PASSES = 20, 8

#: The node of fused attention on a processor; those on a GPU keep PyTorch's formulas
FUSED = "ScaledDotProductFlashAttentionForCpuBackward0"


def _attention(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Attention out = P v with P = softmax(s q kᵀ + m), for each batch entry and head.

    For a cotangent g, with A = g vᵀ and B = P ∘ (A − Σ (P ∘ A)), the sum along each row:

        for q: s B k      for k: s Bᵀ q      for v: Pᵀ g

    Several heads of q may share one of k and v. A mask is added; a call that differentiates one, or drops out, gets no
    fused attention from PyTorch. What is between is not in half precision.
    """
    count = prod(lead)
    if not is_recorded() and not is_transformed() and _kernel_pays(node, count):
        return shaped(node, lead, _by_kernel(node, count, g))
    dtype = torch.promote_types(g.dtype, torch.float32)
    g, q, k, v = (each.to(dtype) for each in (g, *(node.saved(name) for name in ("query", "key", "value"))))
    batch, _, length, features = q.shape
    groups, size = k.shape[1:3]
    scale = node.saved("scale")
    scale = features**-0.5 if scale is None else scale
    scores = q.reshape(batch, groups, -1, length, features) @ k.unsqueeze(2).mT * scale
    # Where a mask may hide all of a line, it is zero.
    softmax = torch.softmax if node.saved("attn_mask") is None else torch.ops.aten._safe_softmax
    p = softmax(_masked(node, scores), -1).reshape(batch * groups, -1, size)
    # Heads that share k and v are more lines of one matrix, as are rows in `times`.
    q, k, v = (each.reshape(batch * groups, -1, each.shape[-1]) for each in (q, k, v))
    g = g.reshape(count, *q.shape[:-1], v.shape[-1])
    a = p * times(g, v.mT)
    b = a - p * a.sum(-1, keepdim=True)
    results: Results = [None] * len(node.inputs)
    if node.needs(0):
        results[0] = times(b, k * scale)
    if node.needs(1):
        results[1] = times(b.mT, q * scale)
    if node.needs(2):
        results[2] = times(g.mT, p).mT
    return shaped(node, lead, results)


def _kernel_pays(node: Node, count: int) -> bool:
    """Return whether PyTorch's kernel takes less: products for each head, where the formula passes over all scores."""
    batch, heads, length, _ = node.shape
    calls = count * batch * heads
    scores: int = calls * length * node.saved("key").shape[2]
    return calls * LAUNCH < CALLS * LAUNCH + PASSES * NUMBER * scores


def _by_kernel(node: Node, count: int, g: Tensor) -> Results:
    """Return what PyTorch's kernel makes of rows that are more samples; no graph is recorded."""
    saved = [node.saved(name) for name in ("query", "key", "value", "output", "logsumexp")]
    mask = node.saved("attn_mask")
    if mask is not None and mask.dim() == 4 and mask.shape[0] > 1:
        mask = _in_batch(mask, count)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    results = kernel(
        g.reshape(-1, *node.shape[1:]).contiguous(), *(_in_batch(each, count) for each in saved),
        0.0, node.saved("is_causal"), attn_mask=mask, scale=node.saved("scale"),
    )  # fmt: skip
    return [*results, *[None] * (len(node.inputs) - 3)]


def _in_batch(value: Tensor, count: int) -> Tensor:
    """Return a tensor of samples for each row."""
    return value.expand(count, *value.shape).reshape(-1, *value.shape[1:])


def _masked(node: Node, scores: Tensor) -> Tensor:
    """Return the scores with the mask added, and without what comes later where a causal one was asked for."""
    mask = node.saved("attn_mask")
    if mask is not None:
        batch, groups, shared, length, size = scores.shape
        scores = scores + mask.expand(batch, groups * shared, length, size).reshape(scores.shape)
    if node.saved("is_causal"):
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores


register([FUSED], BackwardFormula(_attention, is_recorded))
