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


class NodeMatch:
    """Lines of Python that compare the node at a place with values, which they name ``t0``, ``t1`` and so on."""

    def __init__(self, place: int) -> None:
        self.values: list[Any] = [place]
        self.lines = ["n = v[t0]"]
        self.conditions: list[str] = []

    def differs(self, condition: str) -> None:
        """Add a condition under which the node is another one."""
        self.conditions.append(condition)

    def told(self, value: Any) -> str:
        """Return the name of a value."""
        self.values.append(value)
        return f"t{len(self.values) - 1}"

    def of_type(self, kind: type) -> None:
        """Compare the type first: it says what can be read."""
        self.lines.append(f"if type(n) is not {self.told(kind)}: return")

    def edges(self, edges: Sequence[tuple[int | None, bool, int]], anchored: bool) -> None:
        """Compare the node at each edge, if it is not found there first, and the number of its output."""
        places = ""
        for k, (place, new, slot) in enumerate(edges):
            at = None if place is None else f"v[{self.told(place)}]"
            places += f"({at if new else f'x{k}'}, s{k}), "
            if not new:
                self.differs(f"x{k} is not {at}")
            self.differs(f"s{k} != {slot}" if slot else f"s{k}")
        self.lines.append(f"({places}) = {'edges = ' if anchored else ''}n.next_functions")
        if anchored:
            self.lines.append("anchor(n, edges)")

    def metadata(self, fn: Any) -> None:
        """Compare the shapes, dtypes and devices of the outputs."""
        metas = fn._input_metadata
        self.lines.append(f"({''.join(f'm{k}, ' for k in range(len(metas)))}) = n._input_metadata")
        for k, meta in enumerate(metas):
            self.differs(f"m{k}.shape != {self.told(list(meta.shape))}")
            self.differs(f"m{k}.dtype is not {self.told(meta.dtype)}")
            self.differs(f"m{k}.device != {self.told(meta.device)}")

    def saved(self, fn: Any) -> None:
        """Compare the saved values that are no tensors."""
        names = saved_names(type(fn))
        if names is not None:
            for name in names:
                self._saved(f"n.{name}", getattr(fn, name))
            return
        read = reader(fn)
        assert read is not None  # it tells no attributes, so it reads more
        self.differs(f"exact({self.told(read)}(n)) != {self.told(exact(read(fn)))}")

    def _saved(self, read: str, value: Any) -> None:
        """Compare a saved value; its type is part of it, and the sign of a zero."""
        kind = type(value)
        if value is None or kind is bool or isinstance(value, type):
            self.differs(f"{read} is not {self.told(value)}")
        elif kind is int or (kind is float and isfinite(value) and value):
            self.differs(f"type(w := {read}) is not {kind.__name__} or w != {self.told(value)}")
        elif kind is tuple and all(type(item) is int for item in value) and "scalar" not in read:
            self.differs(f"{read} != {self.told(value)}")  # a list of ints holds nothing else
        else:
            self.differs(f"exact({read}) != {self.told(exact(value))}")

    def made(self) -> tuple[_Match, Sequence[str], tuple[Any, ...]]:
        """Return the function that compares, its lines, and the values."""
        lines = (*self.lines, f"if {' or '.join(self.conditions) or False}: return")
        return *_matcher(lines, len(self.values)), tuple(self.values)


@lru_cache(4096)
def _matcher(lines: Sequence[str], count: int) -> tuple[_Match, Sequence[str]]:
    """Return what compares nodes of a kind, and its lines: graphs differ in the values told."""
    names: dict[str, Any] = _NAMES.copy()
    told = "".join(f", t{k}" for k in range(count))
    exec("\n ".join([f"def match(v{told}):", *lines, "return True"]), names)
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
