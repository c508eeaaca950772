"""Recognising a graph that came before: its reading foretold, as a straight line of comparisons.

What `read_graph` and `signature` say of a graph is known where each node has the type, the edges, the shapes and the
saved numbers of one that was read. To compare them takes a third of reading them into a key, and nothing is hashed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from math import isfinite
from typing import Any

from torch import Tensor

from .._blocks.tracing import is_tracing
from .._torch import grad_fn_of
from .deletion import anchor, is_anchor
from .graph import SPENT, Graph, Signature, exact, read_graph, reader, saved_names

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
    signature.compare = _Comparison(graph, outputs).function()
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


class _Comparison:
    """The source of a function that compares; ``failed`` where a graph cannot be foretold."""

    def __init__(self, graph: Graph, outputs: Sequence[Tensor]) -> None:
        self.graph = graph
        self.outputs = outputs
        self.first = len(graph.nodes) - len(graph.edges)
        self.number = {fn: at for at, fn in enumerate(graph.nodes)}
        self.bound = {fn: f"n{at}" for at, fn in enumerate(graph.starts)}
        self.start_types = {type(fn) for fn in graph.starts}
        self.names: dict[str, Any] = {"anchor": anchor, "exact": exact, "grad_fn_of": grad_fn_of}
        self.constants: dict[Hashable, str] = {}
        self.lines: list[str] = []
        self.told: set[tuple[Any, int]] = set()
        self.failed = False

    def function(self) -> Callable[[Sequence[Tensor], Sequence[Any]], list[Any] | None] | None:
        """Return a function of outputs and starts: it gives the nodes, or None where the graph is another one."""
        nodes = self.graph.nodes
        for k, (output, end) in enumerate(zip(self.outputs, self.graph.ends, strict=True)):
            self._output(f"o{k}", output, end)
        for at in range(len(nodes) - 1, -1, -1):
            if self.failed:
                return None
            self._node(at)
        starts = "".join(f"n{at}, " for at in range(self.first))
        outputs = "".join(f"o{k}, " for k in range(len(self.outputs)))
        lines = [
            f"def compare(outputs, starts):\n try:\n  ({starts}) = starts\n  ({outputs}) = outputs",
            *self.lines,
            f"  return [{', '.join(f'n{at}' for at in range(len(nodes)))}]",
            " except (ValueError, RuntimeError):\n  return None",  # more edges; a nested tensor, without a shape
        ]
        exec("\n".join(lines), self.names)
        return self.names["compare"]  # type: ignore[no-any-return]

    def _refuse_if(self, conditions: Sequence[str]) -> None:
        if conditions:
            self.lines.append(f"  if {' or '.join(conditions)}: return None")

    def _constant(self, value: Any, key: Hashable) -> str:
        if key not in self.constants:
            self.constants[key] = f"c{len(self.constants)}"
            self.names[self.constants[key]] = value
        return self.constants[key]

    def _output(self, name: str, output: Tensor, end: tuple[int, int] | None) -> None:
        fn = output.grad_fn
        if end is None:
            self.failed = self.failed or fn is not None
            self._refuse_if([f"grad_fn_of({name}) is not None"])
        elif fn in self.bound:
            self._refuse_if([f"grad_fn_of({name}) is not {self.bound[fn]}"])
        else:
            self.bound[fn] = f"n{end[0]}"
            self.lines.append(f"  n{end[0]} = grad_fn_of({name})")
        slot = [] if end is None else [f"{name}.output_nr != {end[1]}"]
        self._refuse_if([*slot, f"{name}.shape != {self._constant(output.shape, output.shape)}"])
        self._refuse_if(self._type_of(name, output))

    def _type_of(self, name: str, of: Any) -> list[str]:
        return [
            f"{name}.dtype is not {self._constant(of.dtype, of.dtype)}",
            f"{name}.device != {self._constant(of.device, of.device)}",
        ]

    def _node(self, at: int) -> None:
        fn, name = self.graph.nodes[at], f"n{at}"
        if at >= self.first:
            self._type(fn, name)
            below = self._edges(fn, name)
            while below:
                below += self._undifferentiated(*below.pop())
            self._refuse_if(self._saved(fn, name))
            if type(fn).__name__ in TELLING:
                self.told.add(fn.next_functions[0])
            if self._is_determined(fn):
                return
        metas = fn._input_metadata
        self.lines.append(f"  ({''.join(f'm{k}, ' for k in range(len(metas)))}) = {name}._input_metadata")
        for k, meta in enumerate(metas):
            self._refuse_if([f"m{k}.shape != {list(meta.shape)}", *self._type_of(f"m{k}", meta)])

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

    def _type(self, fn: Any, name: str) -> None:
        kind: Any = type(fn)
        self._refuse_if([f"type({name}) is not {self._constant(kind, kind)}"])

    def _edges(self, fn: Any, name: str) -> list[tuple[Any, str]]:
        """Read the edges of a node; return the nodes below it that lead to no input, and their names."""
        places, conditions, found = "", [], []
        for k, (below, slot) in enumerate(fn.next_functions):
            place = f"x{k}"
            if below is None or below in self.bound:
                conditions.append(f"{place} is not {self.bound.get(below)}")
            else:
                place = f"n{self.number[below]}" if below in self.number else f"u{len(self.bound)}"
                self.bound[below] = place
                if below not in self.number:
                    found.append((below, place))
            conditions.append(f"s{k} != {slot}" if slot else f"s{k}")
            places += f"({place}, s{k}), "
        self.lines.append(f"  ({places}) = {'edges = ' if is_anchor(fn) else ''}{name}.next_functions")
        if is_anchor(fn):
            self.lines.append(f"  anchor({name}, edges)")
        self._refuse_if(conditions)
        return found

    def _undifferentiated(self, fn: Any, name: str) -> list[tuple[Any, str]]:
        """Compare a node that leads to no input: it tells whether something outside asks for gradients."""
        self._type(fn, name)
        if type(fn) in self.start_types:
            self._refuse_if([f"{name} in starts"])
        if fn.next_functions:
            return self._edges(fn, name)
        if not hasattr(fn, "variable"):
            self.failed = True
        else:
            self._refuse_if([f"hasattr({name}.variable, {SPENT!r}) is not {hasattr(fn.variable, SPENT)}"])
        return []

    def _saved(self, fn: Any, name: str) -> list[str]:
        """Return what must not hold of the saved values that are no tensors."""
        names = saved_names(type(fn))
        if names is not None:
            return [self._differs(f"{name}.{saved}", getattr(fn, saved)) for saved in names]
        read = reader(fn)
        assert read is not None  # it tells no attributes, so it reads more
        value = exact(read(fn))
        return [
            f"exact({self._constant(read, (type(fn), 'read'))}({name})) != {self._constant(value, ('saved', value))}"
        ]

    def _differs(self, read: str, value: Any) -> str:
        """Return the condition that a saved value is another one; its type is part of it, and the sign of a zero."""
        kind = type(value)
        if value is None or kind is bool or isinstance(value, type):
            return f"{read} is not {self._constant(value, (kind, value))}"
        if kind is int or (kind is float and isfinite(value) and value):
            return f"type(v := {read}) is not {kind.__name__} or v != {value!r}"
        if kind is tuple and all(type(item) is int for item in value) and "scalar" not in read:
            return f"{read} != {value!r}"  # a list of ints holds nothing else
        return f"exact({read}) != {self._constant(exact(value), ('exact', exact(value)))}"
