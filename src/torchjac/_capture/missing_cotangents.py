"""Telling whether a Function is given zeros for the cotangents of outputs that nothing was made of, or None.

It says so by ``ctx.set_materialize_grads``, and what it said cannot be read from its node (torch 2.9-2.14). Importing
torchjac replaces that method, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.autograd.function import FunctionCtx

#: Where a node's ``metadata`` tells that it is given None
_KEY = "torchjac_takes_none"

_set_materialize_grads: Callable[..., None] = FunctionCtx.set_materialize_grads


@wraps(_set_materialize_grads)
def set_materialize_grads(self: Any, value: bool) -> None:
    """`FunctionCtx.set_materialize_grads`, which `takes_none` knows of."""
    _set_materialize_grads(self, value)
    if (metadata := getattr(self, "metadata", None)) is not None:  # a context of a trace has none
        metadata[_KEY] = not value


FunctionCtx.set_materialize_grads = set_materialize_grads  # type: ignore[method-assign]


def takes_none(fn: Any) -> bool:
    """Return whether the node of a Function is given None for a cotangent that is missing."""
    found: bool = fn.metadata.get(_KEY, False)
    return found
