"""The graph between some inputs and some outputs, and its signature: all that planning looks at but the saved tensors.

Two graphs with the same signature have the same ops, joined in the same way, between tensors of the same shapes, dtypes
and devices, with the same saved numbers, strings and flags.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._plan.key import KeyOf
from .deletion import MOST_NESTED, anchor_some


class Signature:
    """All that planning looks at of a graph but its saved tensors; equal to others with the same ``parts``.

    ``compare`` tells whether other outputs have a graph of this signature, by its nodes; None where that is unknown.
    """

    __slots__ = ("__weakref__", "compare", "edges", "ends", "foreign", "functions", "hash", "names", "parts")

    def __init__(self, graph: Graph, parts: tuple[Hashable, ...]) -> None:
        self.parts = parts
        self.hash = hash(parts)
        self.edges, self.ends, self.foreign = graph.edges, graph.ends, graph.foreign
        self.functions, self.names = graph.has_functions, graph.names
        self.compare: Callable[[Sequence[Tensor], Sequence[Any]], list[Any] | None] | None = None

    def __hash__(self) -> int:
        """Return the hash of the parts, which is computed once."""
        return self.hash

    def __eq__(self, other: object) -> bool:
        """Tell whether two graphs look the same."""
        return isinstance(other, Signature) and self.hash == other.hash and self.parts == other.parts


@dataclass(slots=True, eq=False)
class Graph:
    """Nodes of autograd, each after those below it; first those that the inputs began as.

    Attributes:
        nodes: the nodes that lead to an input.
        edges: for each node after the inputs, the number of the node below each edge and the number of its output;
            the number is None where nothing differentiated lies below, and -1 where there is no node.
        ends: the number of each output's node and which output of the node it is, None where it leads to no input.
        foreign: whether something outside also asks for gradients.
        known: the signature of a graph that was recognised.
    """

    nodes: list[Any]
    edges: list[tuple[tuple[int | None, int], ...]]
    ends: list[tuple[int, int] | None]
    foreign: bool = False
    known: Signature | None = None

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return len(self.nodes) - len(self.edges)

    @property
    def starts(self) -> list[Any]:
        """The nodes that the inputs began as."""
        return self.nodes[: self.inputs]

    @property
    def has_functions(self) -> bool:
        """A test of each node: is it that of a `torch.autograd.Function`."""
        if self.known is not None:
            return self.known.functions
        return any(issubclass(kind, BackwardCFunction) for kind in set(map(type, self.nodes)))

    @property
    def names(self) -> set[str]:
        """The names of the nodes' types."""
        if self.known is not None:
            return self.known.names
        return {type(fn).__name__ for fn in self.nodes}


class UnkeyedError(Exception):
    """A node saved something that cannot be part of a key."""


def read_graph(outputs: Sequence[Tensor], starts: Sequence[Any]) -> Graph:
    """Read the graph between the nodes that inputs began as and some outputs."""
    graph = Graph(list(starts), [], [])
    number: dict[Any, int | None] = {None: -1}
    for start, fn in enumerate(starts):
        number[fn] = start
    read: list[tuple[Any, Any]] = []
    for output in outputs:
        root = output.grad_fn
        if root is not None and root not in number:
            _read(root, number, graph, read)
        at = None if root is None else number[root]
        graph.ends.append(None if at is None else (at, output.output_nr))
    if len(read) > MOST_NESTED:
        anchor_some(read)
    return graph


def _read(root: Any, number: dict[Any, int | None], graph: Graph, read: list[tuple[Any, Any]]) -> None:
    nodes, all_edges = graph.nodes, graph.edges
    stack = [root]
    above: list[tuple[Any, Any]] = []
    while stack:
        fn = stack.pop()
        if fn is not None:
            if fn not in number:
                number[fn] = None
                edges = fn.next_functions
                above.append((fn, edges))
                stack.append(None)  # all below it are read
                for below, _ in reversed(edges):
                    if below not in number:
                        stack.append(below)
            continue
        fn, edges = above[-1]
        read.append(above.pop())
        places, leads = [], False
        for below, slot in edges:
            at = number[below]
            places.append((at, slot))
            if at is not None and at >= 0:
                leads = True
        if leads:
            number[fn] = len(nodes)
            nodes.append(fn)
            all_edges.append(tuple(places))
        elif not edges and _is_foreign(fn):
            graph.foreign = True


#: What a leaf is marked with that a capture made for itself, once its function has run, and nobody can ask for its
#: gradient: the Jacobian of a function that takes another inside would else be recorded for the inner one's leaf
SPENT = "_torchjac_spent"


def _is_foreign(fn: Any) -> bool:
    """Return whether the end of a path asks for gradients outside: a leaf, or an input of AOTAutograd."""
    if hasattr(fn, "variable"):
        return not hasattr(fn.variable, SPENT)
    return bool(fn.name() == "torch::autograd::Error")  # how its inputs look to the tracer (torch 2.13)


def signature(graph: Graph, outputs: Sequence[Tensor]) -> Signature | None:
    """Return the signature of a graph; None where a node holds what no key can tell."""
    if graph.known is not None:
        return graph.known
    key: list[Hashable] = [*graph.edges, *graph.ends]
    first = len(graph.nodes) - len(graph.edges)
    for output in outputs:
        key += (output.shape, output.dtype, output.device)
    append = key.append
    try:
        for at, fn in enumerate(graph.nodes):
            if at >= first:
                kind: Any = type(fn)
                append(kind)
                read = _READERS[kind] if kind in _READERS else reader(fn)
                if read is not None:
                    append(exact(read(fn)))
            for meta in fn._input_metadata:
                if meta.is_nested_tensor:
                    return None
                append(tuple(meta.shape))
                append(meta.dtype)
                append(meta.device)
    except UnkeyedError:
        return None
    return Signature(graph, tuple(key))


#: What reads all that nodes of a type saved and that is no tensor; None where that is nothing
_READERS: dict[type, Callable[[Any], Any] | None] = {}


def reader(fn: Any) -> Callable[[Any], Any] | None:
    """Return what reads all that a node, and those of its type, saved and that is no tensor."""
    kind: Any = type(fn)
    if issubclass(kind, BackwardCFunction):  # a type for each Function, inside functorch for each call
        return _function
    saved = _saved(kind)
    read = attrgetter(*saved) if saved else None
    if not fn.name().endswith(kind.__name__):  # a type that nodes of several names share
        return lambda fn: (fn.name(), read and read(fn))
    _READERS[kind] = read
    return read


def saved_names(kind: type) -> list[str] | None:
    """Return the attributes that the reader of a type reads; None where it reads more."""
    return _saved(kind) if kind in _READERS else None


@cache
def _saved(kind: type) -> list[str]:
    """Return the saved values of a type of nodes that are no tensors; `dir` takes longer than all else here."""
    names = dir(kind)
    return [name for name in names if name.startswith("_saved_") and f"_raw{name}" not in names]


def _function(fn: Any) -> tuple[Any, Any]:
    """Return the Function of a node, and what a Function of ours adds to a key."""
    return type(fn)._forward_cls, getattr(fn, "torchjac_key", None)


#: Types of saved values that are equal only if they are the same
_SAME = frozenset((int, str, type(None), KeyOf, torch.dtype, torch.device, torch.layout, torch.memory_format))


def exact(value: Any) -> Hashable:
    """Return a value as part of a key, in which 1, 1.0 and True differ, and 0.0 and −0.0."""
    kind = type(value)
    if kind in _SAME:
        return value  # type: ignore[no-any-return]
    if kind is tuple or kind is list:
        return tuple([item if type(item) is int else exact(item) for item in value])
    if kind is float:
        return (kind, value.hex())
    if kind is bool:
        return (kind, value)
    if kind is complex:
        return (kind, value.real.hex(), value.imag.hex())
    if isinstance(value, type):
        return value
    raise UnkeyedError
