"""The backward formula of an angle without squares: PyTorch's own overflows in half precision near the origin."""

from __future__ import annotations

import torch

from .._capture.tape import Node
from .anew import Anew, Cotangents, Results, register


def _atan2(node: Node, cotangents: Cotangents) -> Results:
    """Angle out = atan2(y, x) at a distance r from the origin.

    ∂out/∂y = x / r / r      ∂out/∂x = −y / r / r      both 0 at the origin itself, as in PyTorch
    """
    (g,) = cotangents
    assert g is not None
    y, x = node.saved("self"), node.saved("other")
    at_origin = (y == 0) & (x == 0)
    r = torch.hypot(y, torch.where(at_origin, 1, x))
    factors = x / r / r, -y / r / r
    return [
        g * factor.masked_fill(at_origin, 0) if node.needs(k) else None for k, factor in enumerate(factors)
    ]


def _is_half(node: Node) -> bool:
    return torch.finfo(node.outputs[0].dtype).bits < 32


register(["Atan2Backward0"], Anew(_atan2, fails=_is_half))
