"""Captured tensors whose values are part of a program, compared by their bits at each call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: The type of integers of a number of bytes
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Assumed(NamedTuple):
    """A captured tensor whose values are part of a program, and a copy of it."""

    tensor: Tensor
    copy: Tensor


def still_holds(assumed: Assumed) -> bool:
    """Return whether a tensor has the values that were assumed; a write through ``tensor.data`` raises no version."""
    tensor, copy = assumed
    if tensor.shape != copy.shape or tensor.dtype != copy.dtype:
        return False
    return torch.equal(_bits(tensor), _bits(copy))


def _bits(tensor: Tensor) -> Tensor:
    """Return numbers of which equal ones are the same: 0.0 is equal to -0.0, and NaN to nothing."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.detach().view(_INTEGERS[tensor.itemsize]) if tensor.is_floating_point() else tensor
