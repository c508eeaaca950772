"""The backward formulas of products without a division: PyTorch's own divide by the entries.

What divides has no second derivative at a zero, and overflows near one. Here each product of others is made of the
products in front of an entry and behind it, in a number of steps that grows with the logarithm of the size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, is_recorded, register, shaped


def before(x: Tensor, dim: int) -> Tensor:
    """Return the product of all entries in front of each along a dim: of (a, b, c) it is (1, a, ab)."""
    size = x.shape[dim]
    shifted = torch.cat(
        [torch.ones_like(x.narrow(dim, 0, min(size, 1))), x.narrow(dim, 0, max(size - 1, 0))], dim
    )
    return shifted.cumprod(dim)


def others(x: Tensor, dim: int) -> Tensor:
    """Return the product of all other entries along a dim: of (a, b, c) it is (bc, ac, ab)."""
    return before(x, dim) * before(x.flip(dim), dim).flip(dim)


def _prod(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """Product out = Π x: ∂out/∂x[i] is the product of the others."""
    x = node.saved("self").to(g.dtype)
    if node.name == "ProdBackward0" or not x.dim():
        factor = others(x.reshape(-1), -1)
        return shaped(node, lead, [g.reshape(*lead, 1) * factor.conj()])
    dim = node.saved("dim") % x.dim() - x.dim()
    g = g if node.saved("keepdim") else g.unsqueeze(dim)
    return shaped(node, lead, [g * others(x, dim).conj()])


def _cumprod(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """Running product out[k] = Π_{i ≤ k} x[i], p[j] being the product in front of x[j].

    Σ_k g[k] ∂out[k]/∂x[j] = p[j] s[j]      s[j] = g[j] + x[j+1] s[j+1]
    """
    x = node.saved("self").to(g.dtype).conj()
    if not x.numel() or not x.dim():
        return shaped(node, lead, [g])
    dim = node.saved("dim") % x.dim() - x.dim()
    size, step = x.shape[dim], 1
    following = torch.cat([x.narrow(dim, 1, size - 1), torch.zeros_like(x.narrow(dim, 0, 1))], dim)
    sums = g
    while (
        step < size
    ):  # sums[j] = g[j] + … with the next `step` entries, following[j] the product up to the next one
        rest = size - step
        factor = following.narrow(dim, 0, rest)
        sums = torch.cat(
            [sums.narrow(dim, 0, rest) + factor * sums.narrow(dim, step, rest), sums.narrow(dim, rest, step)],
            dim,
        )
        following = torch.cat(
            [factor * following.narrow(dim, step, rest), following.narrow(dim, rest, step)], dim
        )
        step *= 2
    return shaped(node, lead, [before(x, dim) * sums])


register(["ProdBackward0", "ProdBackward1"], BackwardFormula(_prod, fails=is_recorded))
register(["CumprodBackward0"], BackwardFormula(_cumprod, fails=is_recorded))
