"""Matrices by rows as PyTorch's tensors, without the warning that compressed layouts give once in a process."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor


def csr_tensor(begin: Tensor, index: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a tensor in CSR layout; that the layout is in beta state is nothing its reader can change."""
    hear_warning()
    return torch.sparse_csr_tensor(begin, index, values, size, device=values.device, check_invariants=False)


@lru_cache(maxsize=1)
def hear_warning() -> None:
    """Let PyTorch warn, unheard, that CSR, CSC and BSR are in beta state: once for all of them (torch 2.9-2.14)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), device="cpu", check_invariants=False)
