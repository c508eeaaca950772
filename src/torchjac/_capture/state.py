"""The state of the thread is after a call what it was before, wherever an exception or an interrupt cut it short.

Each change is undone where it was made. But an interrupt may come in the very line that undoes one, so a call that
enters the library looks at the state first, and an exception that leaves it finds all set back. What undoes a change is
never a generator, which an error may keep, and which would undo it once more when that is dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch

from .._plan.recorder import recorder, set_recorder
from .._torch import (
    InferenceMode,
    allow_saved_hooks,
    dispatch_mode_at,
    dispatch_mode_count,
    end_levels_above,
    function_mode_count,
    function_state,
    graph_exec_group,
    inplace_requires_grad_allowed,
    level_count,
    pop_dispatch_mode,
    pop_function_mode,
    pop_saved_hooks,
    python_dispatch,
    refuse_saved_hooks,
    saved_hooks_refusal,
    set_function_state,
    set_grad_enabled,
    set_graph_exec_group,
    set_inplace_requires_grad_allowed,
    top_saved_hooks,
)

T = TypeVar("T")

#: Makes a named tuple of a tuple, without the call of its class
_new = tuple.__new__


class _OpenChanges(threading.local):
    """The changes of this thread that were not undone yet, the innermost last."""

    def __init__(self) -> None:
        self.changes: list[Change] = []


_here = _OpenChanges()


class Change:
    """A change of what the library, or PyTorch, keeps for a while; a context manager.

    Attributes:
        make: makes the change, and gives what the context is to be known by.
        undo: sets back what was changed so far, be it nothing or all, also if it is called again.
    """

    make: Callable[[], Any]
    undo: Callable[[], None]

    def __enter__(self) -> Any:
        _here.changes.append(self)
        return self.make()

    def __exit__(self, *_: object) -> None:
        while (last := _here.changes[-1]) is not self:  # its own way back was cut short
            last.undo()
            _here.changes.pop()
        self.undo()
        _here.changes.pop()


class setting(Change):  # a context manager, and used as one
    """Set a variable of the thread for a while."""

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self.variable, self.value, self.before = variable, value, variable.get()

    def make(self) -> None:
        self.variable.set(self.value)

    def undo(self) -> None:
        self.variable.set(self.before)


class normal_mode(Change):
    """Leave inference mode; whether a graph is recorded is another question."""

    def __init__(self) -> None:
        self.guards: list[Any] = []

    def make(self) -> None:
        """Make a guard, which would enter the mode again whenever it is dropped."""
        self.guards.append(InferenceMode(False))

    def undo(self) -> None:
        """End the guard."""
        while self.guards:
            self.guards.pop().__exit__(None, None, None)


class State(NamedTuple):
    """The parts of the state of its thread that a call may change."""

    grad: bool
    levels: int
    writes_allowed: bool
    hooks_disabled: str | None
    saving: tuple[Any, Any] | None
    dispatch_modes: list[Any]
    function_modes: int
    function_state: Any
    group: Any
    changes: int
    recorder: Any


def state() -> State:
    """Return the state of this thread."""
    modes = dispatch_mode_count()
    parts = (
        torch.is_grad_enabled(),
        level_count(),
        inplace_requires_grad_allowed(),
        saved_hooks_refusal(),
        top_saved_hooks(True),
        [dispatch_mode_at(at) for at in range(modes)] if modes else [],
        function_mode_count(),
        function_state(),
        graph_exec_group(),
        len(_here.changes),
        recorder(),
    )
    return _new(State, parts)


def set_back(before: State) -> None:
    """Make the state of this thread what it was."""
    now = state()
    set_function_state(before.function_state)
    for _ in range(now.function_modes - before.function_modes):
        pop_function_mode()
    for _ in range(len(now.dispatch_modes) - len(before.dispatch_modes)):
        pop_dispatch_mode(None)
    _tell_modes(before.dispatch_modes)
    while len(_here.changes) > before.changes:
        _here.changes.pop().undo()
    if level_count() > before.levels:
        end_levels_above(before.levels)
    set_inplace_requires_grad_allowed(before.writes_allowed)
    set_grad_enabled(before.grad)
    while top_saved_hooks(True) not in (before.saving, None):  # which a checkpointed block sets while it runs
        pop_saved_hooks()
    if before.hooks_disabled is None:
        allow_saved_hooks()
    elif now.hooks_disabled != before.hooks_disabled:
        refuse_saved_hooks(before.hooks_disabled, False)
    set_recorder(before.recorder)
    if now.group is not before.group:
        set_graph_exec_group(before.group)


def _tell_modes(modes: list[Any]) -> None:
    """Set what PyTorch remembers of the modes that are active."""
    outside = [mode for mode in modes if not mode.is_infra_mode()]
    flags = {
        "_is_in_torch_dispatch_mode": bool(modes),
        "_is_in_non_infra_torch_dispatch_mode": bool(outside),
        "_is_in_any_mode_without_ignore_compile_internals": any(
            not mode.ignore_compile_internals() for mode in outside
        ),
    }
    for name, flag in flags.items():
        if hasattr(python_dispatch, name):
            setattr(python_dispatch, name, flag)


class undisturbed:  # a context manager, and used as one
    """Leave the state of this thread as it is, should an exception end what is done here."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = state()

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            set_back(self.before)
