"""Recognising a graph that came before: its reading foretold, node after node.

What `read_graph` and `signature` say of a graph is known where each node has the type, the edges, the shapes and the
saved numbers of one that was read. To compare them takes less than half of reading them into a key, and nothing is
hashed.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._blocks.tracing import is_tracing
from .._torch import grad_fn_of
from .deletion import is_anchor
from .graph import SPENT, Graph, Signature, read_graph
from .match import GraphMatch, NodeMatch, OutputMatch

#: A graph of more nodes is read each time
MOST_NODES = 5_000

#: Nodes whose saved numbers and inputs, where all of these are in the graph, tell the shapes of their outputs. Those
#: that may have been asked for another dtype, as sums, are not here.
DETERMINED = frozenset(
    f"{op}Backward{k}"
    for ops, k in [
        ("Abs Add Atan Bmm Cat Clone Cos Cosh Diagonal Div Erf Exp Exp2 Expm1 Flip Gelu Log Log1p Mul Mv Neg Permute "
         "Pow Reciprocal Relu Roll Rsqrt Select Sigmoid Silu Sin Sinh Slice Softplus Split Sqrt Stack Sub T Tan Tanh "
         "Transpose Tril Triu Unbind Unfold Unsqueeze", 0),
        ("Rsub", 1),
        *[("Squeeze", k) for k in range(6)],
    ]
    for op in ops.split()
)  # fmt: skip

#: Nodes that saved the sizes of their first input
TELLING = frozenset(
    [f"SqueezeBackward{k}" for k in range(6)]
    + [f"{op}Backward{k}" for op in ("Mean", "Sum") for k in range(2)]
    + ["DiagonalBackward0", "ExpandBackward0", "IndexBackward0", "IndexSelectBackward0", "MmBackward0",
       "RepeatBackward0", "SelectBackward0", "SliceBackward0", "SplitBackward0", "UnfoldBackward0",
       "UnsafeViewBackward0", "ViewBackward0"]
)  # fmt: skip

#: Nodes whose outputs have the dtype and the device of their first input, and a shape that they do not tell
SHAPED = frozenset(("ExpandBackward0", "UnsafeViewBackward0", "ViewBackward0"))

#: The most graphs that begin alike that are tried, the last recognised first
MOST_ALIKE = 4

#: By how graphs begin: the signatures of those that are recognised, which live as long as a program has them in its key
_known: dict[Hashable, list[weakref.ref[Signature]]] = {}


def graph_between(outputs: Sequence[Tensor], starts: Sequence[Any]) -> Graph:
    """Return the graph between the nodes that inputs began as and some outputs."""
    if is_tracing():  # sizes may be symbols, which a comparison would bind
        return read_graph(outputs, starts)
    beginning = _beginning(outputs, starts)
    found: Sequence[weakref.ref[Signature]] = _known.get(beginning, ())
    for reference in found[:MOST_ALIKE]:
        known = reference()
        nodes = None if known is None or known.compare is None else known.compare(outputs, starts)
        if known is not None and nodes is not None:
            if reference is not found[0]:
                _known[beginning] = [reference, *(each for each in found if each is not reference)]
            return Graph(nodes, known.edges, known.ends, known.foreign, known)
    return read_graph(outputs, starts)


def recognise(graph: Graph, outputs: Sequence[Tensor], signature: Signature) -> None:
    """Recognise graphs of a signature from now on, for as long as it is kept."""
    if signature.compare is not None or len(graph.nodes) > MOST_NODES:
        return
    signature.compare = _Foretold(graph, outputs).comparison()
    if signature.compare is None:
        return
    beginning = _beginning(outputs, graph.starts)

    def forget(reference: weakref.ref[Signature]) -> None:
        left = [each for each in _known.pop(beginning, ()) if each is not reference]
        if left:
            _known[beginning] = left

    _known[beginning] = [weakref.ref(signature, forget), *_known.get(beginning, ())]


def _beginning(outputs: Sequence[Tensor], starts: Sequence[Any]) -> Hashable:
    first = outputs[0] if outputs else None
    return len(starts), len(outputs), first is not None and (type(grad_fn_of(first)), first.shape)


class _Foretold:
    """The comparisons of a graph's nodes, each after that of one above it; ``failed`` where it cannot be foretold."""

    def __init__(self, graph: Graph, outputs: Sequence[Tensor]) -> None:
        self.graph = graph
        self.outputs = outputs
        self.first = len(graph.nodes) - len(graph.edges)
        self.number = {fn: at for at, fn in enumerate(graph.nodes)}
        self.bound = {fn: at for at, fn in enumerate(graph.starts)}
        self.places = len(graph.nodes)
        self.start_types = {type(fn) for fn in graph.starts}
        self.matches: list[NodeMatch] = []
        self.told: set[tuple[Any, int]] = set()
        self.failed = False

    def comparison(self) -> GraphMatch | None:
        """Return the comparison with other graphs; None where this one cannot be foretold."""
        nodes = self.graph.nodes
        ends = [self._end(*each) for each in zip(self.outputs, self.graph.ends, strict=True)]
        for at in range(len(nodes) - 1, -1, -1):
            below = self._node(at)
            while below:
                below += self._undifferentiated(below.pop())
            if self.failed:
                return None
        self._functions_apart()
        return GraphMatch(ends, self.matches, len(nodes), self.first, self.places)

    def _functions_apart(self) -> None:
        """Compare that calls of a Function are as many: a gradient clipped once is not two gradients clipped apart."""
        calls: dict[type, list[int]] = {}
        for fn, place in self.bound.items():
            if isinstance(fn, BackwardCFunction):
                calls.setdefault(type(fn), []).append(place)
        for first, *others in calls.values():
            if others:
                match = NodeMatch(first)
                match.apart(others)
                self.matches.append(match)

    def _end(self, output: Tensor, end: tuple[int, int] | None) -> OutputMatch:
        fn, (place, slot) = output.grad_fn, end or (None, 0)
        self.failed = self.failed or (end is None and fn is not None)
        bound = place is not None and fn not in self.bound
        if place is not None:
            self.bound[fn] = place
        return OutputMatch(output.shape, output.dtype, output.device, place, slot, bound)

    def _node(self, at: int) -> list[Any]:
        """Compare a node; return those below it that lead to no input."""
        fn, match, below = self.graph.nodes[at], NodeMatch(at), []
        if at >= self.first:
            match.of_type(type(fn))
            below = self._edges(fn, match)
            match.saved(fn)
            if type(fn).__name__ in TELLING:
                self.told.add(fn.next_functions[0])
        if at < self.first or not self._is_determined(fn):
            match.metadata(fn)
        self.matches.append(match)
        return below

    def _is_determined(self, fn: Any) -> bool:
        """Return whether what is compared below a node tells what its outputs are like; of one dtype, on one device."""
        edges, kind = fn.next_functions, type(fn).__name__
        if kind == "MmBackward0":  # both sizes are saved
            edges = [edge for edge in edges if edge[0] in self.number]
        elif kind in SHAPED:
            if (fn, 0) not in self.told:
                return False
        elif kind not in DETERMINED or any(below not in self.number for below, _ in edges):
            return False
        metas = [*fn._input_metadata, *[below._input_metadata[slot] for below, slot in edges]]
        return len({(meta.dtype, meta.device) for meta in metas}) == 1

    def _edges(self, fn: Any, match: NodeMatch) -> list[Any]:
        """Compare the edges of a node; return the nodes below it that lead to no input and were not found before."""
        found, edges = [], []
        for below, slot in fn.next_functions:
            place, new = self.bound.get(below), below is not None and below not in self.bound
            if new:
                place = self.number.get(below)
                if place is None:
                    place, self.places = self.places, self.places + 1
                    found.append(below)
                self.bound[below] = place
            edges.append((place, new, slot))
        match.edges(edges, is_anchor(fn))
        return found

    def _undifferentiated(self, fn: Any) -> list[Any]:
        """Compare a node that leads to no input: it tells whether something outside asks for gradients."""
        match, below = NodeMatch(self.bound[fn]), []
        match.of_type(type(fn))
        if type(fn) in self.start_types:
            match.no_start()
        if fn.next_functions:
            below = self._edges(fn, match)
        elif hasattr(fn, "variable"):
            match.marked(SPENT, hasattr(fn.variable, SPENT))
        else:
            self.failed = True
        self.matches.append(match)
        return below
