"""The levels of vmap as batch dims: inside them a tensor wraps a physical one, which plain autograd can follow.

A function is called inside the levels, so that it sees samples; what it recorded beneath them is one graph of the
whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .samples import samples_tell

#: The numbers of the vmaps that a tensor is batched by, ascending: the outermost first
Levels: TypeAlias = tuple[int, ...]

#: Levels that were left, to be entered again: what functorch pops from its stack
Stack: TypeAlias = list[Any]

#: The levels that this thread entered again
_entered: ContextVar[Stack | None] = ContextVar("torchjac_levels_entered", default=None)


class Physical(NamedTuple):
    """A tensor with its batch dims in front, one for each level."""

    tensor: Tensor
    levels: Levels


def inside_vmaps_only() -> bool:
    """Whether vmaps are active, and no other transform."""
    functorch = torch._C._functorch  # private: no public way to ask for active levels (torch 2.9-2.13)
    stack = functorch.get_interpreter_stack()
    return bool(stack) and all(level.key() == functorch.TransformType.Vmap for level in stack)


class levels_left:  # a context manager, and used as one
    """Leave all levels of functorch for a while, as it does itself to run a Function outside of them."""

    __slots__ = ("stack", "token")

    def __enter__(self) -> Stack:
        functorch = torch._C._functorch  # private; see above
        self.stack: Stack = []
        self.token = _entered.set(None)
        while functorch.peek_interpreter_stack() is not None:
            self.stack.append(functorch.pop_dynamic_layer_stack())
        return self.stack

    def __exit__(self, *_: object) -> None:
        for level in reversed(self.stack):
            torch._C._functorch.push_dynamic_layer_stack(level)
        _entered.reset(self.token)


@contextmanager
def levels_entered(stack: Stack | None) -> Iterator[None]:
    """Enter levels again that were left; those that are active meanwhile are left."""
    if stack is None:
        yield
        return
    functorch = torch._C._functorch  # private; see above
    with levels_left():
        token = _entered.set(stack)
        for level in reversed(stack):
            functorch.push_dynamic_layer_stack(level)
        try:
            with samples_tell():
                yield
        finally:
            for _ in stack:
                functorch.pop_dynamic_layer_stack()
            _entered.reset(token)


def levels_now() -> Stack | None:
    """The levels that were entered again, None where none were."""
    return _entered.get()


def lowered(tensor: Tensor) -> Physical:
    """The physical tensor beneath all vmaps."""
    functorch = torch._C._functorch  # private; see above
    found: list[tuple[int, int]] = []
    while functorch.is_batchedtensor(tensor):
        found.append((functorch.maybe_get_level(tensor), functorch.maybe_get_bdim(tensor)))
        tensor = functorch.get_unwrapped(tensor)
    dims = list(range(tensor.dim()))
    batch = [dims.pop(dim) for _, dim in reversed(found)]
    order = batch + dims
    if order != sorted(order):
        tensor = tensor.permute(order)
    return Physical(tensor, tuple([level for level, _ in reversed(found)]))


def lifted(tensor: Tensor, levels: Levels) -> Tensor:
    """A physical tensor as it is seen inside the levels of its first dims."""
    for level in levels:
        tensor = torch._C._functorch._add_batch_dim(tensor, 0, level)  # private; see above
    return tensor
