"""A budget of memory: ops that would hold more of it at once are refused before they run.

What a walk will hold is known for no function beforehand (a user's backward may make anything), but before each op:
its results have the sizes that it gives on tensors without memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .._torch import TorchDispatchMode, pytree


class OverBudgetError(MemoryError):
    """An op would hold more memory at once than there is; no fallback for a failing op catches it."""


class Budget(TorchDispatchMode):
    """Counts the bytes of tensors made below it that are alive, and raises where they would be more than ``most``.

    Attributes:
        live: the bytes alive now.
        peak: the most that were alive at once.

    >>> with Budget(2000) as budget:
    ...     _ = torch.zeros(100, dtype=torch.float64) + 1
    >>> budget.peak, budget.live
    (1600, 800)
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = most
        self.live = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op that leaves no more alive than there may be."""
        kwargs = kwargs or {}
        if not _makes_tensors(func):
            return func(*args, **kwargs)
        room = self.most - self.live
        if _bound(args, kwargs) > room:
            needed = _needed(func, args, kwargs)
            if needed > room:
                raise self._over(func, needed)
        result = func(*args, **kwargs)
        self._count(result, args, kwargs)
        if self.live > self.most:
            raise self._over(func, 0)
        return result

    def _over(self, func: Any, needed: int) -> OverBudgetError:
        return OverBudgetError(f"{self.live + needed:,} bytes at {func} of {self.most:,}")

    def _count(self, result: Any, args: Any, kwargs: Any) -> None:
        given: set[int] | None = None
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._alive or tensor.is_meta:
                continue
            if given is None:
                given = {each.untyped_storage()._cdata for each in _tensors((args, kwargs))}
            if key not in given:
                self._alive[key] = weakref.ref(storage, self._freed(key, storage.nbytes()))
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> Any:
        def freed(_: Any) -> None:
            self._alive.pop(key, None)
            self.live -= size

        return freed


@cache
def _makes_tensors(func: Any) -> bool:
    """Return whether an op may return a tensor with memory of its own: by its schema, or where it has none."""
    schema = getattr(func, "_schema", None)
    return schema is None or any(
        result.alias_info is None and "Tensor" in str(result.type) for result in schema.returns
    )


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Yield the dense tensors of some arguments or results."""
    if isinstance(tree, Tensor):
        if tree.layout is torch.strided:
            yield tree
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            yield from _tensors(each)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


#: The most that a number takes
_WIDEST = 16


def _bound(args: Any, kwargs: Any) -> int:
    """Return a bound of the bytes that the results of an op take.

    An entry is named by those of its arguments and by sizes, or by twice the same ones, as in the matrix of a diagonal.
    """
    bound = 1
    stack = [*args, *kwargs.values()]
    while stack:
        each = stack.pop()
        if isinstance(each, Tensor):
            bound *= max(each.numel(), 1)
        elif isinstance(each, (tuple, list)):
            stack += each
        elif type(each) is int:
            bound *= max(abs(each), 1)
    return _WIDEST * bound**2


def _needed(func: Any, args: Any, kwargs: Any) -> int:
    """Return the bytes that an op makes, as it tells on the meta device; none where it cannot tell."""
    given = []
    device = kwargs.get("device")
    if (device is not None and device.type == "meta") or any(
        each.is_meta for each in _tensors((args, kwargs))
    ):
        return 0

    def empty(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return torch.device("meta")
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
            return leaf
        given.append(torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta"))
        return given[-1]

    args, kwargs = pytree.tree_map(empty, (args, kwargs))
    try:
        if not given and any(argument.name == "device" for argument in func._schema.arguments):
            kwargs = {**kwargs, "device": torch.device("meta")}
        result = func(*args, **kwargs)
    except (
        Exception
    ):  # an op that looks at values, or has no formula without them: what it makes is counted after it
        return 0
    old = {tensor.untyped_storage()._cdata for tensor in given}
    made = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in _tensors(result)}
    return sum(size for key, size in made.items() if key not in old)
