"""Telling whether nodes have hooks: they change gradients, and only PyTorch's engine runs them.

Every registration makes a handle with a number of its own, in whatever thread it is done: where none was made while a
function ran, no node that it recorded has hooks. Otherwise the nodes are asked. A node does not tell of the hooks of
its tensors (torch 2.9-2.14), so `Tensor.register_hook` leaves them on it; importing torchjac replaces this method,
once, by what calls whatever stood there (see `samples` and `writing_functions` for all others).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from .._torch import DisableTorchFunction
from .graph import Graph

#: Where a node's ``metadata`` keeps the hooks of its tensors
_KEY = "torchjac_hooks"

_register_hook: Callable[[torch.Tensor, Any], RemovableHandle] = torch.Tensor.register_hook


@wraps(_register_hook)
def register_hook(self: torch.Tensor, hook: Any) -> Any:
    """`Tensor.register_hook`, which leaves the tensor's hooks on its node too."""
    handle = _register_hook(self, hook)
    with DisableTorchFunction():  # what a mode or a subclass sees stays the one call
        node: Any = self.grad_fn  # whose stub takes ``metadata`` for a method
        if node is not None:
            node.metadata.setdefault(_KEY, []).append(self._backward_hooks)
    return handle


torch.Tensor.register_hook = register_hook  # type: ignore[method-assign]


def hooks_made() -> int:
    """Return a number that is another after a hook was registered, in any thread."""
    return RemovableHandle.next_id


def has_hooks(graph: Graph) -> bool:
    """Return whether nodes of a graph have hooks; none has if `hooks_made` is what it was before they were recorded."""
    return any(map(_is_hooked, graph.nodes))


def _is_hooked(fn: Any) -> bool:
    if any(fn.metadata.get(_KEY, ())):
        return True
    # Registering one more is the only way to see the others.
    for register in (fn.register_hook, fn.register_prehook):
        handle = register(_nothing)
        hooks = handle.hooks_dict_ref()
        handle.remove()
        if hooks:
            return True
    return False


def _nothing(*_: Any) -> None:
    """Change nothing."""
