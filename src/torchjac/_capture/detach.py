"""Cutting a tensor from its graph without losing the tangents that forward modes outside gave it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._blocks.tracing import has_tangents, inside_functorch


def detach_keep_tangent(tensor: Tensor) -> Tensor:
    """Return the tensor detached from backward mode only: `Tensor.detach` drops tangents too.

    Inside functorch there may be a tangent at any of its levels, under a vmap that cannot take it out (torch
    2.9-2.13); but a copy made without gradients keeps them all.
    """
    if not has_tangents() or torch.is_inference_mode_enabled():  # where no tangent is carried on
        return tensor.detach()
    if inside_functorch():
        with torch.no_grad():
            return tensor.clone()
    tangent = forward_ad.unpack_dual(tensor).tangent
    return tensor.detach() if tangent is None else forward_ad.make_dual(tensor.detach(), tangent)
