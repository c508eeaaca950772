"""Cutting a tensor from its graph without losing the tangent that a forward mode outside gave it."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import forward_ad


def cut(tensor: Tensor) -> Tensor:
    """The tensor detached from backward mode only: `Tensor.detach` drops tangents too."""
    if forward_ad._current_level < 0:  # private; what unpack_dual asks first (torch 2.9-2.13)
        return tensor.detach()
    tangent = forward_ad.unpack_dual(tensor).tangent
    return tensor.detach() if tangent is None else forward_ad.make_dual(tensor.detach(), tangent)
