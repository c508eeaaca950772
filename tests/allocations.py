"""Memory counted: what large tensors a piece of a program makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Allocations(TorchDispatchMode):
    """The storages of results that hold at least so many numbers, each with the first op to give it.

    >>> with Allocations(10) as seen:
    ...     _ = torch.zeros(3, 4, dtype=torch.float64).sum()
    >>> [name for name, _ in seen.storages.values()]
    ['aten.zeros.default']
    """

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.storages = least, dict[int, tuple[str, torch.Tensor]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= self.least * 8:
                # kept alive, so that no address is used twice
                self.storages.setdefault(tensor.untyped_storage().data_ptr(), (str(func), tensor))
        return result
