"""Telling which writes through views are those of a Function: its backward is a user's own code, and stays unseen.

Where a `torch.autograd.Function` writes into a view, the node that it leaves is a `CopySlices`, as that of any op in
place, and Python cannot see what is inside (torch 2.9-2.14). But such a Function calls ``ctx.mark_dirty``, and where
none did while a function ran, no write that it recorded is one's. Importing torchjac replaces that method, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor
from torch.autograd.function import FunctionCtx

from .._torch import is_level_tensor
from .graph import Graph

#: The name of a write through a view, and of one that may be a Function's
WRITE = "torch::autograd::CopySlices"
WRITE_OF_FUNCTION = f"{WRITE} of a Function"

#: Where a node's ``metadata`` tells that it may be
_KEY = "torchjac_write_of_function"

#: The last time that a Function told what it writes into: another object each time, in whatever thread
_last = object()

_mark_dirty: Callable[..., None] = FunctionCtx.mark_dirty


@wraps(_mark_dirty)
def mark_dirty(self: Any, *args: Any) -> None:
    """`FunctionCtx.mark_dirty`, after which `last_write` is another if one of the tensors is a view."""
    if any(isinstance(arg, Tensor) and (is_level_tensor(arg) or arg._is_view()) for arg in args):
        global _last
        _last = object()
    _mark_dirty(self, *args)


FunctionCtx.mark_dirty = mark_dirty  # type: ignore[method-assign]


def last_write() -> object:
    """Return an object that is another after a Function wrote in place, in any thread."""
    return _last


def mark_writes(graph: Graph, before: object) -> bool:
    """Mark all writes through views of a graph as a Function's, if one wrote after `last_write` was what it was before.

    Return whether some were marked.
    """
    if _last is before:
        return False
    writes = [fn for fn in graph.nodes if type(fn).__name__ == "CopySlices"]
    for fn in writes:
        fn.metadata[_KEY] = True
    return bool(writes)


def name_of_write(fn: Any) -> str:
    """Return the name of a node that is a write through a view."""
    return WRITE_OF_FUNCTION if _KEY in fn.metadata else WRITE
