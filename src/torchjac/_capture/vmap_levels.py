"""The levels of vmap as batch dims: inside them a tensor wraps a physical one, which plain autograd can follow.

A function is called inside the levels, so that it sees samples; what it recorded beneath them is one graph of the
whole batch.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .samples import samples_tell
from .state import Change

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
    """Return whether vmaps are active, and no other transform."""
    functorch = torch._C._functorch  # private: no public way to ask for active levels (torch 2.9-2.13)
    stack, vmap = functorch.get_interpreter_stack(), functorch.TransformType.Vmap
    return bool(stack) and all(level.key() == vmap for level in stack)


class levels_left(Change):  # a context manager, and used as one
    """Leave all levels of functorch for a while, as it does itself to run a Function outside of them."""

    def __init__(self) -> None:
        self.count = torch._C._functorch.get_dynamic_layer_stack_depth()  # private; see above
        self.are_off = False
        self.stack: Stack = []
        self.before = _entered.get()

    def make(self) -> Stack:
        """Take all levels off functorch's stack; those that come meanwhile end before they are put back."""
        functorch = torch._C._functorch  # private; see above
        _entered.set(None)
        while len(self.stack) < self.count:
            self.stack.append(functorch.pop_dynamic_layer_stack())
        self.are_off = True
        return self.stack

    def undo(self) -> None:
        """Put them back, as many as are off."""
        functorch = torch._C._functorch  # private; see above
        if self.are_off:
            functorch.pop_dynamic_layer_stack_and_undo_to_depth(0)
            self.are_off = False
        while (depth := functorch.get_dynamic_layer_stack_depth()) < self.count:
            functorch.push_dynamic_layer_stack(self.stack[self.count - 1 - depth])
        _entered.set(self.before)


class _Entered(Change):
    """Levels that were left, on the stack again."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.before = stack, _entered.get()

    def make(self) -> None:
        """Put them on functorch's stack, which is empty."""
        functorch = torch._C._functorch  # private; see above
        _entered.set(self.stack)
        for level in reversed(self.stack):
            functorch.push_dynamic_layer_stack(level)

    def undo(self) -> None:
        """Take them off, after those that came on top of them have ended."""
        functorch = torch._C._functorch  # private; see above
        if functorch.get_dynamic_layer_stack_depth() > len(self.stack):
            functorch.pop_dynamic_layer_stack_and_undo_to_depth(len(self.stack))
        while functorch.get_dynamic_layer_stack_depth():
            functorch.pop_dynamic_layer_stack()
        _entered.set(self.before)


class levels_entered:  # a context manager, and used as one
    """Enter levels again that were left; those that are active meanwhile are left."""

    def __init__(self, stack: Stack | None) -> None:
        self.changes = () if stack is None else (levels_left(), _Entered(stack), samples_tell())

    def __enter__(self) -> None:
        for change in self.changes:
            change.__enter__()

    def __exit__(self, *exception: object) -> None:
        for change in reversed(self.changes):
            change.__exit__(*exception)


def levels_now() -> Stack | None:
    """Return the levels that were entered again, None where none were."""
    return _entered.get()


def lowered(tensor: Tensor) -> Physical:
    """Return the physical tensor beneath all vmaps."""
    functorch = torch._C._functorch  # private; see above
    if not functorch.is_batchedtensor(tensor):
        return Physical(tensor, ())
    value = functorch.get_unwrapped(tensor)
    if functorch.maybe_get_bdim(tensor) == 0 and not functorch.is_batchedtensor(value):  # nearly always
        return Physical(value, (functorch.maybe_get_level(tensor),))
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
    """Return a physical tensor as it is seen inside the levels of its first dims."""
    for level in levels:
        tensor = torch._C._functorch._add_batch_dim(tensor, 0, level)  # private; see above
    return tensor
