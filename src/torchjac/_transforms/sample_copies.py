"""A copy of each parameter for every sample, where an op without a rule stands between it and the samples.

Nothing tells that such an op, as a `torch.autograd.Function`, keeps samples apart: each output of each sample would
be a row through the whole batch. A copy is an input that is batched, for which one cotangent serves all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._capture.beneath_vmap import Beneath
from .._capture.capture import Captured
from .._capture.graph import Graph
from .._rules.nnz_estimate import is_opaque
from .._torch import is_level_tensor, pytree, unwrapped

#: Of code that was called, whether copies paid: its parameters are then copied from the beginning
_paid: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def copies_paid(func: Callable[..., Any]) -> bool | None:
    """Return whether copies paid at earlier calls of a function; None where it is not known."""
    try:
        return _paid.get(_code(func))
    except TypeError:  # it has no hash, or no weak references
        return None


def copies_pay(func: Callable[..., Any], captured: Captured, beneath: Beneath, copied: bool) -> bool:
    """Return whether an op without a rule leads to an input that is not batched, or is ``copied``; remember it.

    A graph that came often enough to be recognised is what it was.
    """
    graph = captured.graph
    if graph.known is not None:
        return copied
    pays = _leads_through_opaque(graph, beneath, copied)
    with suppress(TypeError):
        _paid[_code(func)] = pays
    return pays


def _code(func: Any) -> Any:
    """Return what a function has in common with those that are made of the same lines: its code, if it has one."""
    while isinstance(func, partial):
        func = func.func
    return getattr(getattr(func, "__func__", func), "__code__", func)


class BeforeCall:
    """The random state, and the versions of all arguments, before a call that may have to be made again."""

    def __init__(self, args: Any) -> None:
        self._tensors = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
        self._versions = self._read()
        self._states: list[tuple[Callable[..., Any], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
        for device in {tensor.device for tensor in self._tensors} - {
            torch.device("cpu"),
            torch.device("meta"),
        }:
            module = torch.get_device_module(device)
            self._states.append((partial(module.set_rng_state, device=device), module.get_rng_state(device)))

    def _read(self) -> list[int]:
        return [0 if tensor.is_inference() else _beneath(tensor)._version for tensor in self._tensors]

    def restored(self) -> bool:
        """Return whether the call can be made again: no argument was written to; it will draw the same numbers."""
        if self._read() != self._versions:
            return False
        for restore, state in self._states:
            restore(state)
        return True


def _beneath(tensor: Tensor) -> Tensor:
    """Return the tensor beneath all levels, which is what is written to."""
    while is_level_tensor(tensor):
        tensor = unwrapped(tensor)
    return tensor


def _leads_through_opaque(graph: Graph, beneath: Beneath, copied: bool) -> bool:
    every = {level for levels in (*beneath.in_levels, *beneath.out_levels) for level in levels}
    leads = [copied or len(levels) < len(every) for levels in beneath.in_levels]
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
