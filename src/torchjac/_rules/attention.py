"""The backward formula of fused attention, made of products and a softmax: PyTorch's own has no derivative."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, is_recorded, register, shaped

#: The node of fused attention on a processor; those on a GPU keep PyTorch's formulas
FUSED = "ScaledDotProductFlashAttentionForCpuBackward0"


def _attention(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Attention out = P v with P = softmax(s q kᵀ + m), for each batch entry and head.

    For a cotangent g, with A = g vᵀ and B = P ∘ (A − Σ (P ∘ A)), the sum along each row:

        for q: s B k      for k: s Bᵀ q      for v: Pᵀ g

    Several heads of q may share one of k and v. A mask is added; a call that differentiates one, or drops out, gets no
    fused attention from PyTorch. What is between is not in half precision.
    """
    dtype = torch.promote_types(g.dtype, torch.float32)
    g, q, k, v = (each.to(dtype) for each in (g, *(node.saved(name) for name in ("query", "key", "value"))))
    batch, heads, length, features = q.shape
    shared = heads // max(k.shape[1], 1)
    q = q.reshape(batch, -1, shared, length, features)
    k, v = k.unsqueeze(2), v.unsqueeze(2)
    g = g.reshape(*lead, batch, -1, shared, length, v.shape[-1])
    scale = node.saved("scale")
    scale = features**-0.5 if scale is None else scale
    p = torch.ops.aten._safe_softmax(_masked(node, q @ k.mT * scale), -1)
    a = p * (g @ v.mT)
    b = a - p * a.sum(-1, keepdim=True)
    results: Results = [None] * len(node.inputs)
    if node.needs(0):
        results[0] = b @ k * scale
    if node.needs(1):
        results[1] = (b.mT @ q * scale).sum(-3)
    if node.needs(2):
        results[2] = (p.mT @ g).sum(-3)
    return shaped(node, lead, results)


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
