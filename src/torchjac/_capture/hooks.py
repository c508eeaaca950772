"""Noticing hooks that a function registers: they change gradients, and only PyTorch's engine runs them."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch

from .checkpoints import share_blocks
from .graph import Graph

_seen: ContextVar[list[Any] | None] = ContextVar("torchjac_hooks_seen", default=None)
_lock = Lock()
_watchers = 0
_register_on_tensor = torch.Tensor.register_hook
# Private: what `Node.register_hook` and `register_prehook` call to keep a hook (torch 2.9-2.13).
_register_on_node = torch.autograd.function._HookMixin._register_hook


def _note(hook: Any) -> None:
    seen = _seen.get()
    if seen is not None:
        seen.append(hook)


def _noticed_on_tensor(tensor: torch.Tensor, hook: Any) -> Any:
    """`Tensor.register_hook`, noting that it was called."""
    _note(hook)
    return _register_on_tensor(tensor, hook)


def _noticed_on_node(hooks: Any, hook: Any) -> Any:
    """The registration of a node's hook, noting that it was called."""
    _note(hook)
    return _register_on_node(hooks, hook)


def _replace(on_tensor: Any, on_node: Any) -> None:
    torch.Tensor.register_hook = on_tensor
    torch.autograd.function._HookMixin._register_hook = staticmethod(on_node)


class watch_hooks:  # a context manager, and used as one
    """Collect the hooks that this thread registers on tensors and nodes meanwhile.

    A node does not tell whether it has hooks (torch 2.9-2.13), so the methods that register them are replaced
    while a function is captured.
    """

    def __enter__(self) -> list[Any]:
        global _watchers
        self.outer = _seen.get()
        self.seen: list[Any] = []
        self.token = _seen.set(self.seen)
        with _lock:
            _watchers += 1
            if _watchers == 1:
                _replace(_noticed_on_tensor, _noticed_on_node)
                share_blocks(True)
        return self.seen

    def __exit__(self, *_: object) -> None:
        global _watchers
        _seen.reset(self.token)
        if self.outer is not None:  # what an inner Jacobian runs is part of the graph of the outer one
            self.outer.extend(self.seen)
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                _replace(_register_on_tensor, _register_on_node)
                share_blocks(False)


def has_hooks(seen: list[Any], graph: Graph) -> bool:
    """Whether hooks were registered on tensors or nodes, or by modules between the ends of a graph."""
    return bool(seen) or "BackwardHookFunctionBackward" in graph.names
