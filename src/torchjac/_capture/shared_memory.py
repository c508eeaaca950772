"""Telling whether tensors share memory."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from .._blocks.tracing import is_tracing
from .._torch import is_level_tensor


def memory_of(tensor: Tensor) -> int:
    """Return what two tensors have in common if they share memory; a tensor inside functorch does not tell.

    Forward mode makes zeros without memory, private to torch 2.9-2.13, that do not tell either, nor do sparse
    tensors. Without addresses, inside a trace and for a subclass that wraps others, the storage object tells.
    """
    if is_level_tensor(tensor) or tensor.layout is not torch.strided or tensor._is_zerotensor():
        return 0
    storage = tensor.untyped_storage()
    found: int = storage._cdata
    if not is_tracing():
        with suppress(RuntimeError):  # a storage of Python's has no address
            found = storage.data_ptr()
    return found
