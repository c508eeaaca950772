"""The graph between some inputs and some outputs, and its signature: all that planning looks at but the saved tensors.

Two graphs with the same signature have the same ops, joined in the same way, between tensors of the same shapes, dtypes
and devices, with the same saved numbers, strings and flags.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._plan.key import KeyOf
from .deletion import MOST_NESTED, anchor_some


@dataclass
class Graph:
    """Nodes of autograd, each after those below it; first those that the inputs began as.

    Attributes:
        nodes: the nodes that lead to an input.
        edges: for each node after the inputs, the number of the node below each edge and the number of its output;
            the number is None where nothing differentiated lies below, and -1 where there is no node.
        ends: the number of each output's node and which output of the node it is, None where it leads to no input.
        foreign: whether something outside also asks for gradients.
    """

    nodes: list[Any]
    edges: list[tuple[tuple[int | None, int], ...]] = field(default_factory=list)
    ends: list[tuple[int, int] | None] = field(default_factory=list)
    foreign: bool = False

    @property
    def starts(self) -> list[Any]:
        """The nodes that the inputs began as."""
        return self.nodes[: len(self.nodes) - len(self.edges)]

    @property
    def names(self) -> set[str]:
        """The names of the nodes' types."""
        return {type(fn).__name__ for fn in self.nodes}


class UnkeyedError(Exception):
    """A node saved something that cannot be part of a key."""


def read_graph(outputs: Sequence[Tensor], starts: Sequence[Any]) -> Graph:
    """Read the graph between the nodes that inputs began as and some outputs."""
    graph = Graph(list(starts))
    number: dict[Any, int | None] = {None: -1}
    for at, fn in enumerate(starts):
        number[fn] = at
    read: list[tuple[Any, Any, Any]] = []
    for output in outputs:
        root = output.grad_fn
        if root is not None and root not in number:
            _read(root, number, graph, read)
        at = None if root is None else number[root]
        graph.ends.append(None if at is None else (at, output.output_nr))
    if len(read) > MOST_NESTED:
        anchor_some(read)
    return graph


def _read(root: Any, number: dict[Any, int | None], graph: Graph, read: list[tuple[Any, Any, Any]]) -> None:
    nodes, all_edges = graph.nodes, graph.edges
    edges = root.next_functions
    number[root] = None
    stack = [(root, edges, iter(edges))]
    while stack:
        fn, edges, rest = stack[-1]
        for below, _ in rest:
            if below not in number:
                number[below] = None
                deeper = below.next_functions
                stack.append((below, deeper, iter(deeper)))
                break
        else:
            read.append(stack.pop())
            places = tuple([(number[below], slot) for below, slot in edges])
            if any(at is not None and at >= 0 for at, _ in places):
                number[fn] = len(nodes)
                nodes.append(fn)
                all_edges.append(places)
            elif not edges and _is_foreign(fn):
                graph.foreign = True


def _is_foreign(fn: Any) -> bool:
    """Whether the end of a path is something outside that asks for gradients: a leaf, or an input of AOTAutograd."""
    if hasattr(fn, "variable"):
        return not hasattr(fn.variable, "_torchjac_spent")
    return bool(fn.name() == "torch::autograd::Error")  # how its inputs look to the tracer (torch 2.13)


def signature(graph: Graph, outputs: Sequence[Tensor]) -> tuple[Hashable, ...] | None:
    """Return the signature of a graph; None where a node holds what no key can tell."""
    key: list[Hashable] = [*graph.edges, *graph.ends]
    first = len(graph.nodes) - len(graph.edges)
    for output in outputs:
        key += (output.shape, output.dtype, output.device)
    append = key.append
    try:
        for at, fn in enumerate(graph.nodes):
            if at >= first:
                kind = type(fn)
                append(kind)
                read = _KINDS[kind] if kind in _KINDS else _kind(kind, fn)
                if read is not None:
                    append(_exact(read(fn)))
            for meta in fn._input_metadata:
                if meta.is_nested_tensor:
                    return None
                append(tuple(meta.shape))
                append(meta.dtype)
                append(meta.device)
    except UnkeyedError:
        return None
    return tuple(key)


#: What reads all that nodes of a type saved and that is no tensor; None where that is nothing
_KINDS: dict[type, Callable[[Any], Any] | None] = {}


def _kind(kind: type, fn: Any) -> Callable[[Any], Any] | None:
    if issubclass(kind, BackwardCFunction):  # a type for each Function, inside functorch for each call
        return _function
    names = dir(kind)
    saved = [name for name in names if name.startswith("_saved_") and f"_raw{name}" not in names]
    read = attrgetter(*saved) if saved else None
    if not fn.name().endswith(kind.__name__):  # a type that nodes of several names share
        return lambda fn: (fn.name(), read and read(fn))
    _KINDS[kind] = read
    return read


def _function(fn: Any) -> tuple[Any, Any]:
    """Return the Function of a node, and what a Function of ours adds to a key."""
    return type(fn)._forward_cls, getattr(fn, "torchjac_key", None)


#: Types of saved values that are equal only if they are the same
_SAME = frozenset((int, str, type(None), KeyOf, torch.dtype, torch.device, torch.layout, torch.memory_format))


def _exact(value: Any) -> Hashable:
    """Return a value as part of a key, in which 1, 1.0 and True differ, and 0.0 and −0.0."""
    kind = type(value)
    if kind in _SAME:
        return value  # type: ignore[no-any-return]
    if kind is tuple or kind is list:
        return tuple([item if type(item) is int else _exact(item) for item in value])
    if kind is float:
        return (kind, value.hex())
    if kind is bool:
        return (kind, value)
    if kind is complex:
        return (kind, value.real.hex(), value.imag.hex())
    if isinstance(value, type):
        return value
    raise UnkeyedError
