"""A copy of each parameter for every sample, where an op without a rule stands between it and the samples.

Nothing tells that such an op, as a `torch.autograd.Function`, keeps samples apart: each output of each sample would
be a row through the whole batch. A copy is an input that is batched, for which one cotangent serves all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from torch.autograd.function import BackwardCFunction

from .._capture.beneath_vmap import Beneath
from .._capture.capture import Captured
from .._capture.graph import Graph
from .._rules.nnz_estimate import is_opaque

#: Functions that copies paid for: their parameters are copied from the beginning at later calls
_copied: WeakSet[Callable[..., Any]] = WeakSet()


def has_copies(func: Callable[..., Any]) -> bool:
    """Return whether copies paid at an earlier call of a function."""
    try:
        return func in _copied
    except TypeError:  # it has no hash, or no weak references
        return False


def copies_pay(func: Callable[..., Any], captured: Captured, beneath: Beneath) -> bool:
    """Return whether an op without a rule leads to an input that is not batched, and remember that of the function.

    A graph that came often enough to be recognised is none of those.
    """
    graph = captured.graph
    if graph.known is not None or not _leads_through_opaque(graph, beneath):
        return False
    with suppress(TypeError):
        _copied.add(func)
    return True


def _leads_through_opaque(graph: Graph, beneath: Beneath) -> bool:
    every = {level for levels in (*beneath.in_levels, *beneath.out_levels) for level in levels}
    leads = [len(levels) < len(every) for levels in beneath.in_levels]
    if not any(leads):
        return False
    for fn, edges in zip(graph.nodes[graph.inputs :], graph.edges, strict=True):
        leads.append(any(at is not None and at >= 0 and leads[at] for at, _ in edges))
        if leads[-1] and is_opaque(_name(fn)):
            return True
    return False


def _name(fn: Any) -> str:
    """Return the name of a node's rule."""
    if isinstance(fn, BackwardCFunction):
        return type(fn).__name__.replace("GeneratedBackward", "Backward")
    name: str = fn.name()
    return name
