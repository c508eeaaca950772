"""Noticing hooks that a function registers while it runs: they change gradients, and only the engine runs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch

from .tape import Tape

_seen: ContextVar[list[Any] | None] = ContextVar("torchjac_hooks_seen", default=None)
_lock = Lock()
_watchers = 0
_register_hook = torch.Tensor.register_hook


def _noticed(tensor: torch.Tensor, hook: Any) -> Any:
    """`Tensor.register_hook`, noting that it was called."""
    seen = _seen.get()
    if seen is not None:
        seen.append(hook)
    return _register_hook(tensor, hook)


@contextmanager
def watch_hooks() -> Iterator[list[Any]]:
    """Collect the hooks that this thread registers on tensors meanwhile.

    A node does not tell whether it has hooks (torch 2.9-2.13), so the method that registers them is replaced
    while a function is captured.
    """
    global _watchers
    seen: list[Any] = []
    token = _seen.set(seen)
    with _lock:
        _watchers += 1
        torch.Tensor.register_hook = _noticed
    try:
        yield seen
    finally:
        _seen.reset(token)
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                torch.Tensor.register_hook = _register_hook


def has_hooks(seen: list[Any], tape: Tape) -> bool:
    """Whether hooks were registered on tensors, or by modules (full backward hooks), between the ends of a tape."""
    return bool(seen) or any(node.name == "BackwardHookFunctionBackward" for node in tape.nodes)
