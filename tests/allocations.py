"""Memory counted: what large tensors a piece of a program makes."""

from __future__ import annotations

import weakref
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
            if strided(tensor) and tensor.untyped_storage().nbytes() >= self.least * 8:
                # kept alive, so that no address is used twice
                self.storages.setdefault(tensor.untyped_storage().data_ptr(), (str(func), tensor))
        return result


class Alive(TorchDispatchMode):
    """The bytes alive of storages that were made below it, and the most that were at once.

    >>> with Alive() as seen:
    ...     x = torch.zeros(100, dtype=torch.float64)
    ...     x = (x + 1)[:50]
    >>> seen.now, seen.most
    (800, 1600)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = torch.utils._pytree.tree_leaves
        given = {each.untyped_storage().data_ptr() for each in leaves((args, kwargs)) if strided(each)}
        result = func(*args, **(kwargs or {}))
        for tensor in filter(strided, leaves(result)):
            storage = tensor.untyped_storage()
            if storage in self.seen or tensor.is_meta or (storage.nbytes() and storage.data_ptr() in given):
                continue
            self.seen.add(storage)
            self.now += storage.nbytes()
            weakref.finalize(storage, self.freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def freed(self, size: int) -> None:
        """Count the end of a storage."""
        self.now -= size


def strided(leaf: Any) -> bool:
    """Whether a leaf is a dense tensor."""
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided
