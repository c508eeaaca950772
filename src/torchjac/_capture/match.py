"""Comparing the nodes of a graph with those of one that was read, each found at an edge of one compared before.

A comparison is lines of Python. They are one function for each kind of node, shared by all graphs, and are called node
after node; once a graph came often, they are written as one function of the whole graph, which takes two thirds of
the time and ten times as long to make.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._plan.price import PATIENCE
from .._torch import grad_fn_of
from .deletion import anchor
from .graph import exact, reader, saved_names

#: To write a comparison as one function takes what this number of calls saves
WRITING = 100

#: What compares a node, of a graph's nodes at their places and what it tells: true where that is another one
_Match: TypeAlias = Callable[..., Any]

_INTS = frozenset((int,))

#: What the lines of a comparison name
_NAMES = {"anchor": anchor, "exact": exact, "grad_fn_of": grad_fn_of}


class OutputMatch(NamedTuple):
    """An output to compare: ``place`` is that of its node, ``bound`` whether the node is found here first."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    place: int | None
    slot: int
    bound: bool


#: Tells the name of the next value
_Next: TypeAlias = Callable[[], str]
#: Lines that read a node, and conditions under which it is another one
_Spelled: TypeAlias = tuple[Sequence[str], Sequence[str]]


def _type(told: _Next) -> _Spelled:
    return [f"if type(n) is not {told()}: return"], ()


def _edges(told: _Next, anchored: bool, *edges: tuple[bool, bool, int]) -> _Spelled:
    places, differs = "", []
    for k, (known, new, slot) in enumerate(edges):
        at = f"v[{told()}]" if known else None
        places += f"({at if new else f'x{k}'}, s{k}), "
        if not new:
            differs.append(f"x{k} is not {at}")
        differs.append(f"s{k} != {slot}" if slot else f"s{k}")
    lines = [f"({places}) = {'edges = ' if anchored else ''}n.next_functions"]
    return (lines + ["anchor(n, edges)"] if anchored else lines), differs


def _metadata(told: _Next, count: int) -> _Spelled:
    differs = []
    for k in range(count):
        differs += [
            f"m{k}.shape != {told()}", f"m{k}.dtype is not {told()}", f"m{k}.device != {told()}"
        ]  # fmt: skip
    return [f"({''.join(f'm{k}, ' for k in range(count))}) = n._input_metadata"], differs


def _same(told: _Next, name: str) -> _Spelled:
    return (), [f"n.{name} is not {told()}"]


def _number(told: _Next, name: str, kind: type) -> _Spelled:
    return (), [f"type(w := n.{name}) is not {kind.__name__} or w != {told()}"]


def _equal(told: _Next, name: str) -> _Spelled:
    return (), [f"n.{name} != {told()}"]


def _exact(told: _Next, name: str) -> _Spelled:
    return (), [f"exact(n.{name}) != {told()}"]


def _read(told: _Next) -> _Spelled:
    return (), [f"exact({told()}(n)) != {told()}"]


def _no_start(told: _Next) -> _Spelled:
    return (), ["n in v[-1]"]


def _marked(told: _Next, marked: bool) -> _Spelled:
    return (), [f"hasattr(n.variable, {told()}) is not {marked}"]


def _apart(told: _Next, count: int) -> _Spelled:
    nodes = ", ".join(["n", *[f"v[{told()}]" for _ in range(count)]])
    return (), [f"len({{{nodes}}}) != {1 + count}"]


class NodeMatch:
    """Comparisons of the node at a place: their kinds, and the values that they compare with."""

    def __init__(self, place: int) -> None:
        self.values: list[Any] = [place]
        self.kinds: list[tuple[Any, ...]] = []

    def _compare(self, kind: tuple[Any, ...], *values: Any) -> None:
        self.kinds.append(kind)
        self.values += values

    def of_type(self, kind: type) -> None:
        """Compare the type first: it says what can be read."""
        self._compare((_type,), kind)

    def no_start(self) -> None:
        """Compare that no input began as the node."""
        self._compare((_no_start,))

    def edges(self, edges: Sequence[tuple[int | None, bool, int]], anchored: bool) -> None:
        """Compare the node at each edge, if it is not found there first, and the number of its output."""
        kinds = [(place is not None, new, slot) for place, new, slot in edges]
        self._compare((_edges, anchored, *kinds), *[place for place, _, _ in edges if place is not None])

    def metadata(self, fn: Any) -> None:
        """Compare the shapes, dtypes and devices of the outputs."""
        metas = fn._input_metadata
        self.kinds.append((_metadata, len(metas)))
        for meta in metas:
            self.values += (list(meta.shape), meta.dtype, meta.device)

    def saved(self, fn: Any) -> None:
        """Compare the saved values that are no tensors."""
        names = saved_names(type(fn))
        if names is not None:
            for name in names:
                self._saved(name, getattr(fn, name))
            return
        read = reader(fn)
        assert read is not None  # it tells no attributes, so it reads more
        self._compare((_read,), read, exact(read(fn)))

    def _saved(self, name: str, value: Any) -> None:
        """Compare a saved value; its type is part of it, and the sign of a zero."""
        kind = type(value)
        if value is None or kind is bool or isinstance(value, type):
            self._compare((_same, name), value)
        elif kind is int or (kind is float and isfinite(value) and value):
            self._compare((_number, name, kind), value)
        elif kind is tuple and "scalar" not in name and _INTS.issuperset(map(type, value)):
            self._compare((_equal, name), value)  # a list of ints holds nothing else
        else:
            self._compare((_exact, name), exact(value))

    def marked(self, mark: str, marked: bool) -> None:
        """Compare whether the variable of a leaf has a mark."""
        self._compare((_marked, marked), mark)

    def apart(self, places: Sequence[int]) -> None:
        """Compare that the nodes at other places are others, and none is there twice."""
        self._compare((_apart, len(places)), *places)

    def made(self) -> tuple[_Match, Sequence[str], tuple[Any, ...]]:
        """Return the function that compares, its lines, and the values."""
        return *_matcher(tuple(self.kinds)), tuple(self.values)


@lru_cache(4096)
def _matcher(kinds: Sequence[tuple[Any, ...]]) -> tuple[_Match, Sequence[str]]:
    """Return what compares nodes by kinds of comparisons, and its lines: graphs differ in the values told."""
    names: dict[str, Any] = _NAMES.copy()
    parameters, lines, conditions = ["v", "t0"], ["n = v[t0]"], []

    def told() -> str:
        parameters.append(f"t{len(parameters) - 1}")
        return parameters[-1]

    for spell, *about in kinds:
        read, differs = spell(told, *about)
        lines += read
        conditions += differs
    lines.append(f"if {' or '.join(conditions) or False}: return")
    exec("\n ".join([f"def match({', '.join(parameters)}):", *lines, "return True"]), names)
    return names["match"], lines


class GraphMatch:
    """The comparison of a graph with the one that outputs and starts have."""

    def __init__(
        self, ends: Sequence[OutputMatch], matches: Sequence[NodeMatch], nodes: int, starts: int, places: int
    ) -> None:
        self.ends, self.nodes, self.starts, self.places = ends, nodes, starts, places
        self.matches = [each.made() for each in matches]
        self.calls = 0
        self.written: Callable[[Sequence[Tensor], Sequence[Any]], list[Any] | None] | None = None

    def __call__(self, outputs: Sequence[Tensor], starts: Sequence[Any]) -> list[Any] | None:
        """Return the nodes between starts and outputs, or None where the graph is another one."""
        if self.written is not None:
            return self.written(outputs, starts)
        self.calls += 1
        if self.calls > PATIENCE * WRITING:
            self.written = self._write()
        if len(outputs) != len(self.ends) or len(starts) != self.starts:
            return None
        found = [*starts, *[None] * (self.places - len(starts)), starts]
        for output, (shape, dtype, device, place, slot, bound) in zip(outputs, self.ends, strict=True):
            fn = grad_fn_of(output)
            if place is not None and bound:
                found[place] = fn
            if fn is not (None if place is None else found[place]):
                return None
            if output.output_nr != slot or output.shape != shape or output.dtype is not dtype:
                return None
            if output.device != device:
                return None
        try:
            for match, _, told in self.matches:
                if not match(found, *told):
                    return None
        except (ValueError, RuntimeError):  # more edges; a nested tensor, without a shape
            return None
        return found[: self.nodes]

    def _write(self) -> Callable[[Sequence[Tensor], Sequence[Any]], list[Any] | None]:
        """Return all as one function: places become its variables, values its constants."""
        names: dict[str, Any] = _NAMES.copy()

        def told(value: Any) -> str:
            if type(value) is int:
                return repr(value)
            names[f"c{id(value)}"] = value
            return f"c{id(value)}"

        starts = "".join(f"n{at}, " for at in range(self.starts))
        outputs = "".join(f"o{k}, " for k in range(len(self.ends)))
        lines = [f"({starts}) = starts", f"({outputs}) = outputs"]
        for k, (shape, dtype, device, place, slot, bound) in enumerate(self.ends):
            node = None if place is None else f"n{place}"
            lines.append(
                f"{node} = grad_fn_of(o{k})" if bound else f"if grad_fn_of(o{k}) is not {node}: return"
            )
            lines.append(f"if o{k}.output_nr != {slot} or o{k}.shape != {told(shape)}: return")
            lines.append(f"if o{k}.dtype is not {told(dtype)} or o{k}.device != {told(device)}: return")
        for _, own, values in self.matches:
            lines += [_spelled(line, values, told) for line in own]
        lines.append(f"return [{', '.join(f'n{at}' for at in range(self.nodes))}]")
        source = ["def compare(outputs, starts):", " try:", *[f"  {line}" for line in lines]]
        exec("\n".join([*source, " except (ValueError, RuntimeError):", "  return"]), names)
        return names["compare"]  # type: ignore[no-any-return]


def _spelled(line: str, values: Sequence[Any], told: Callable[[Any], str]) -> str:
    """Return a line of a comparison with variables for the places and constants for the values that it names."""
    line = re.sub(r"v\[t(\d+)\]", lambda at: f"n{values[int(at[1])]}", line)
    return re.sub(r"\bt(\d+)\b", lambda at: told(values[int(at[1])]), line).replace("v[-1]", "starts")
