"""Scans along a dim: each entry depends on those up to its own position, and half of the Jacobian is zero by law."""

from __future__ import annotations

import torch

from .._blocks.block import Block, zeroed
from .._blocks.domain import at_most
from .._blocks.maps import Label, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import Local, LocalJacobian, rule


@rule("CumsumBackward0", "CumprodBackward0", kind="mixing")
def scan(node: Node) -> LocalJacobian:
    """Running sum and product: out[b, k] = Σ_{j ≤ k} x[b, j], or Π.

    ∂out[b,k]/∂x[b′,j] = δ[b,b′] for j ≤ k, or out[b,k] / x[b,j], and 0 for j > k

    Calls on seeds are linear in what they give; a product with the triangle would not be.

    Example: x (3, 100): 3 · 5,050 entries of 90,000.
    """
    rank = len(node.shape)
    dim = node.saved("dim") % max(rank, 1)
    batch_dims = {0: tuple([(d, d) for d in range(rank) if d != dim])}
    return LocalJacobian(batch_dims=batch_dims, scans={0: (dim, dim)} if rank else {})


@rule("LogcumsumexpBackward0", kind="mixing")
def logcumsumexp(node: Node) -> list[Local]:
    """Running logsumexp: out[b, k] = log Σ_{j ≤ k} exp x[b, j].

    ∂out[b,k]/∂x[b′,j] = δ[b,b′] exp(x[b,j] − out[b,k]) for j ≤ k

    The node is not called: it splits a cotangent by sign, and so loses the second derivative where that is zero.

    Example: x (3, 100): 3 · 5,050 entries of 90,000.
    """
    x, out = node.saved("self"), node.saved("result")
    if not x.dim():
        return [Local(0, Block(1.0, (), (), ()))]
    dim = node.saved("dim") % x.dim()
    over = new_labels(node.shape)
    inner = Label(over[dim].size)
    size = over[dim].size
    x, out = x.movedim(dim, -1).unsqueeze(-2), out.movedim(dim, -1).unsqueeze(-1)
    later = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    value = (x - out).masked_fill(later, -torch.inf).exp()
    on = (*over[:dim], *over[dim + 1 :], over[dim], inner)
    wrt = tuple(bare(inner if d == dim else label) for d, label in enumerate(over))
    block = Block(value, on, tuple(map(bare, over)), wrt)
    domain = at_most(bare(inner), bare(over[dim]))
    return [Local(0, zeroed(block, domain=domain), selects=True)]
