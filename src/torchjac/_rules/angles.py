"""The backward formula of an angle without squares: PyTorch's own overflows in half precision near the origin.

At the origin itself it divides by zero and fills in a zero, which `safe_backward` says more of.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, register


def _atan2(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """Angle out = atan2(y, x) at a distance r from the origin.

    ∂out/∂y = x / r / r      ∂out/∂x = −y / r / r      both 0 at the origin itself, as in PyTorch
    """
    y, x = node.saved("self"), node.saved("other")
    at_origin = (y == 0) & (x == 0)
    r = torch.hypot(y, torch.where(at_origin, 1, x))
    factors = x / r / r, -y / r / r
    return [
        g * factor.masked_fill(at_origin, 0) if node.needs(k) else None for k, factor in enumerate(factors)
    ]


def _overflows(node: Node) -> bool:
    """In half precision, and at the origin in second derivatives."""
    return torch.is_grad_enabled() or torch.finfo(node.outputs[0].dtype).bits < 32


register(["Atan2Backward0"], BackwardFormula(_atan2, fails=_overflows))
