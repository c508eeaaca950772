"""Zeros that are not written: large answers are mostly zeros, and the operating system has them for free."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy
import torch
from torch import Tensor

from .._plan.recording import whole

#: Below this many bytes the allocator reuses warm memory, and filling that is cheaper than fresh pages.
LARGE = 1 << 20


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a zero tensor; on the CPU, when large, of pages that the system zeroes where they are first touched.

    `torch.zeros` writes every byte (torch 2.9-2.13); NumPy asks `calloc`. A diagonal of n = 2000 in float64
    took 0.8 ms so and 11 ms with `torch.zeros`.
    """
    if not is_large(prod(shape), dtype, device):
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    return _untouched(tuple(shape), dtype, prod(shape) * dtype.itemsize)


def is_large(count: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether ``count`` zeros are cheaper to ask of the system than to write."""
    return device.type == "cpu" and count * dtype.itemsize >= LARGE


@whole
def _untouched(shape: tuple[int, ...], dtype: torch.dtype, size: int) -> Tensor:
    return torch.from_numpy(numpy.zeros(size, dtype=numpy.uint8)).view(dtype).view(shape)


def zeros_traced(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a zero vector in a trace: where that pays, an op that asks the system for it when the program runs."""
    if not is_large(count, dtype, device):
        return torch.zeros(count, dtype=dtype, device=device)
    made: Tensor = torch.ops.torchjac.zeros(count, dtype=dtype, device=device)
    return made


def _zeros(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return zeros((count,), dtype, device)


_LIBRARY = torch.library.Library("torchjac", "DEF")
_LIBRARY.define("zeros(SymInt count, *, ScalarType dtype, Device device) -> Tensor")
_LIBRARY.impl("zeros", _zeros, "CompositeExplicitAutograd")
