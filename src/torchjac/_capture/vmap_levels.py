"""The levels of vmap as batch dims: inside them a tensor wraps a physical one, which plain autograd can follow.

A function is called inside the levels, so that it sees samples; what it recorded beneath them is one graph of the
whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from torch import Tensor
from torch.cuda import is_initialized

from .._torch import (
    TransformType,
    add_batch_dim,
    batch_dim_of,
    enable_flash_sdp,
    end_levels_above,
    flash_sdp_enabled,
    interpreter_stack,
    is_batched_tensor,
    level_count,
    level_of,
    math_sdp_enabled,
    pop_level,
    push_level,
    unwrapped,
)
from .state import Change

#: The numbers of the vmaps that a tensor is batched by, ascending: the outermost first
Levels: TypeAlias = tuple[int, ...]

#: Levels that were left, to be entered again: what functorch pops from its stack
Stack: TypeAlias = list[Any]

#: The kind of a level of vmap
_VMAP = TransformType.Vmap

#: The levels that this thread entered again
_entered: ContextVar[Stack | None] = ContextVar("torchjac_levels_entered", default=None)

#: The levels that were entered again, None where none were
levels_now: Callable[[], Stack | None] = _entered.get

#: A tensor with its batch dims in front, and the levels that these are of
Physical: TypeAlias = tuple[Tensor, Levels]


def inside_vmaps_only() -> bool:
    """Return whether vmaps are active, and no other transform."""
    stack = interpreter_stack()
    for level in stack or ():
        if level.key() != _VMAP:
            return False
    return bool(stack)


class levels_left(Change):  # a context manager, and used as one
    """Leave all levels of functorch for a while, as it does itself to run a Function outside of them."""

    def __init__(self) -> None:
        self.count = level_count()
        self.are_off = False
        self.stack: Stack = []
        self.before = _entered.get()

    def make(self) -> Stack:
        """Take all levels off functorch's stack; those that come meanwhile end before they are put back."""
        if self.before is not None:
            _entered.set(None)
        while len(self.stack) < self.count:
            self.stack.append(pop_level())
        self.are_off = True
        return self.stack

    def undo(self) -> None:
        """Put them back, as many as are off."""
        if self.are_off:
            if level_count():
                end_levels_above(0)
            self.are_off = False
        while (depth := level_count()) < self.count:
            push_level(self.stack[self.count - 1 - depth])
        if _entered.get() is not self.before:
            _entered.set(self.before)


class levels_entered(Change):  # a context manager, and used as one
    """Enter levels again that were left; those that are active meanwhile are left. None are entered for None.

    Attention on a CPU is meanwhile made of products and a softmax of all samples at once: its fused kernel has no
    batching rule, and vmap calls it a sample at a time (torch 2.13).
    """

    def __init__(self, stack: Stack | None) -> None:
        self.stack = stack
        self.left = levels_left() if level_count() else None
        self.before = _entered.get()
        self.are_on = self.was_fused = False

    def make(self) -> None:
        """Put them on functorch's stack, which is empty then."""
        if self.stack is None:
            return
        # The fused kernel stays if there is no other, or a GPU is in use: there it has a batching rule.
        self.was_fused = flash_sdp_enabled() and math_sdp_enabled() and not is_initialized()
        if self.was_fused:
            enable_flash_sdp(False)
        if self.left is not None:
            self.left.make()
        self.are_on = True
        _entered.set(self.stack)
        for level in reversed(self.stack):
            push_level(level)

    def undo(self) -> None:
        """Take them off, after those that came on top of them have ended."""
        if self.are_on:
            if level_count() > len(self.stack or ()):
                end_levels_above(len(self.stack or ()))
            while level_count():
                pop_level()
            self.are_on = False
            _entered.set(self.before)
        if self.left is not None:
            self.left.undo()
        if self.was_fused:
            enable_flash_sdp(True)


def lowered(tensor: Tensor) -> Physical:
    """Return the physical tensor beneath all vmaps."""
    if not is_batched_tensor(tensor):
        return tensor, ()
    value = unwrapped(tensor)
    if batch_dim_of(tensor) == 0 and not is_batched_tensor(value):  # nearly always
        return value, (level_of(tensor),)
    found: list[tuple[int, int]] = []
    while is_batched_tensor(tensor):
        found.append((level_of(tensor), batch_dim_of(tensor)))
        tensor = unwrapped(tensor)
    dims = list(range(tensor.dim()))
    batch = [dims.pop(dim) for _, dim in reversed(found)]
    order = batch + dims
    if order != sorted(order):
        tensor = tensor.permute(order)
    return tensor, tuple([level for level, _ in reversed(found)])


def lifted(tensor: Tensor, levels: Levels) -> Tensor:
    """Return a physical tensor as it is seen inside the levels of its first dims."""
    for level in levels:
        tensor = add_batch_dim(tensor, 0, level)
    return tensor
