"""The tape: the nodes autograd recorded between some outputs and some inputs, in walking order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, TypeAlias, final

import torch
from torch.autograd.function import BackwardCFunction

from .._blocks.lazy import lazy
from .._plan.recorder import recorder
from .._plan.recording import unrecorded
from .detach import detach_keep_tangent
from .writing_functions import WRITE, name_of_write


class Meta(NamedTuple):
    """Shape, dtype and device of a tensor of the graph."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


#: What a named tuple's own constructor calls: on a tiny graph that one call more is a seventh of reading it
_new = tuple.__new__


@final
class Node:
    """One recorded op: its backward function, what it put out, and where its inputs came from.

    ``calls`` counts how often the backward function was called; ``note`` is how its local Jacobian was found;
    ``unbatched`` tells why the rows of a batch went through it one by one, empty where they did not;
    ``all_borrowed`` are the saved tensors that were handed out, which may be the caller's own; ``numel`` is how many
    entries its outputs have; ``is_python`` tells a `torch.autograd.Function`, ``is_complex`` a complex output, and
    ``reads_others`` that something reads an output but the first.
    """

    __slots__ = (
        "borrowed",
        "calls",
        "fn",
        "inputs",
        "is_complex",
        "is_python",
        "name",
        "note",
        "numel",
        "outputs",
        "reads_others",
        "shape",
        "unbatched",
    )  # fmt: skip

    def __init__(self, fn: Any, inputs: tuple[tuple[Node, int] | None, ...] = ()) -> None:
        self.fn = fn
        self.is_python = isinstance(fn, BackwardCFunction)
        # A Python Function may keep anything on its node, a ``name`` too. Inside functorch its node's name
        # carries a suffix (torch 2.9-2.13).
        name = type(fn).__name__.replace("GeneratedBackward", "Backward") if self.is_python else fn.name()
        if name == WRITE:
            name = name_of_write(fn)
        self.name: str = name
        metas = fn._input_metadata
        if len(metas) == 1:  # nearly every node
            (meta,) = metas
            if meta.is_nested_tensor:
                raise _no_nested(name)
            shape, dtype = tuple(meta.shape), meta.dtype
            self.outputs: tuple[Meta, ...] = (_new(Meta, (shape, dtype, meta.device)),)
            self.numel: int = prod(shape)
            self.is_complex = dtype.is_complex
        else:
            if any(meta.is_nested_tensor for meta in metas):
                raise _no_nested(name)
            self.outputs = tuple([Meta(tuple(meta.shape), meta.dtype, meta.device) for meta in metas])
            self.numel = sum([prod(meta.shape) for meta in self.outputs])
            self.is_complex = any(meta.dtype.is_complex for meta in self.outputs)
        #: The shape of the first output
        self.shape: tuple[int, ...] = self.outputs[0].shape
        self.inputs = inputs
        self.reads_others = False
        self.calls = 0
        self.note = self.unbatched = ""
        self.borrowed: list[torch.Tensor] = []

    def into(self, k: int) -> Meta:
        """Shape, dtype and device of the k-th differentiable input."""
        node, slot = self.inputs[k]  # type: ignore[misc]  # asked of needed inputs only
        return node.outputs[slot]

    def needs(self, k: int) -> bool:
        """Return whether the k-th input leads to something differentiated."""
        return k < len(self.inputs) and self.inputs[k] is not None

    def saved(self, name: str) -> Any:
        """Return what the op saved under a name: without graph where none is recorded, dims with their sign."""
        value = getattr(self.fn, "_saved_" + name)
        found = recorder()
        if found is not None:
            found.loaded(self.fn, "_saved_" + name, value)
        if isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                self.borrowed.append(value)
            return (
                detach_keep_tangent(value) if value.requires_grad and not torch.is_grad_enabled() else value
            )
        if isinstance(value, int):
            return _signed(value)
        if isinstance(value, tuple):
            return tuple(_signed(item) if isinstance(item, int) else item for item in value)
        return value

    def unbound(self) -> Node:
        """Return a node like this one, but of no graph."""
        found = _like(self, None)
        found.inputs = tuple(
            [None if edge is None else (_like(edge[0], None), edge[1]) for edge in self.inputs]
        )
        return found

    def narrowed(self, wanted: Collection[int]) -> Node:
        """Return this node as one that needs the wanted inputs alone."""
        found = _like(self, self.fn)
        found.inputs = tuple([edge if k in wanted else None for k, edge in enumerate(self.inputs)])
        found.borrowed = self.borrowed
        return found

    def bound(self, fn: Any) -> Node:
        """Return a node like this one, of another graph of the same signature."""
        return _like(self, fn)

    def vjp(self, *cotangents: torch.Tensor | None) -> Any:
        """Run the backward formula on cotangents of the outputs."""
        found = recorder()
        if found is None:
            return self.fn(*cotangents)
        with unrecorded():  # of zeros without memory PyTorch finds the shapes in Python
            results = self.fn(*cotangents)
        found.formula(self.fn, cotangents, results)
        return results

    @property
    def function(self) -> type[torch.autograd.Function] | None:
        """The `torch.autograd.Function` whose node this is; of such a node only."""
        made: Any = type(self.fn)._forward_cls
        if not issubclass(made, torch.autograd.Function):
            # Inside functorch, a class made for one level, which keeps the Function in a closure (torch 2.9-2.13).
            kept = zip(made.forward.__code__.co_freevars, made.forward.__closure__, strict=True)
            made = next((cell.cell_contents for name, cell in kept if name == "autograd_function"), None)
        return made  # type: ignore[no-any-return]

    @property
    def touches_complex(self) -> bool:
        """True where an output or a needed input is complex: then multipliers do not commute with conjugation."""
        if self.is_complex:
            return True
        for edge in self.inputs:
            if edge is not None and edge[0].is_complex and edge[0].outputs[edge[1]].dtype.is_complex:
                return True
        return False


def _like(node: Node, fn: Any) -> Node:
    inputs = node.inputs if node.fn is None or fn is not None else ()
    found = node_of(node.name, fn, node.outputs, inputs)
    found.is_python, found.reads_others = node.is_python, node.reads_others
    return found


def node_of(
    name: str, fn: Any, outputs: tuple[Meta, ...], inputs: tuple[tuple[Node, int] | None, ...]
) -> Node:
    """Return a node that is read from no graph."""
    found = Node.__new__(Node)
    found.name, found.fn, found.outputs, found.inputs = name, fn, outputs, inputs
    found.shape, found.numel = outputs[0].shape, sum([prod(meta.shape) for meta in outputs])
    found.is_complex = any(meta.dtype.is_complex for meta in outputs)
    found.is_python = found.reads_others = False
    found.calls, found.note, found.unbatched, found.borrowed = 0, "", "", []
    return found


class NestedError(NotImplementedError):
    """A tensor of the graph is nested: there is no tape, for its parts have no common shape."""


def _no_nested(name: str) -> NestedError:
    return NestedError(
        f"func makes a nested tensor ({name}), whose parts have no common shape, so that there is no structure to "
        "keep; jacrev finds the dense Jacobian row by row, or write it with a padded tensor or a list of tensors"
    )


#: A node and the number of its output: a tensor of the graph
Edge: TypeAlias = tuple[Node, int]


def size_of(edge: Edge) -> int:
    """Return how many entries the tensor has."""
    node, slot = edge
    return node.numel if len(node.outputs) == 1 else prod(node.outputs[slot].shape)


def _signed(value: int) -> int:
    # Saved dims are printed as unsigned 64-bit numbers (torch 2.9-2.13).
    return value - (1 << 64) if value >= 1 << 63 else value


#: What was estimated of tapes, by their makes; all is forgotten once these have `MOST_PARTS`, some four for a node
_estimates: dict[tuple[object, ...], dict[Any, Any]] = {}
MOST_PARTS = 1 << 18


@dataclass(frozen=True)
class Tape:
    """Nodes from the outputs down to the inputs, each before those it leads to.

    ``outputs[k]`` is the node and slot of the k-th output (None where it leads to no input); ``inputs`` gives
    for each input's node its number; ``foreign`` tells that something outside also asks for gradients.
    """

    nodes: list[Node]
    outputs: list[tuple[Node, int] | None]
    inputs: dict[Node, int]
    foreign: bool

    @lazy
    def names(self) -> set[str]:
        """The names of the nodes."""
        return {node.name for node in self.nodes}

    @lazy
    def numel(self) -> int:
        """The number of entries of the outputs of all nodes."""
        return sum([node.numel for node in self.nodes])

    @lazy
    def make(self) -> tuple[object, ...]:
        """The common part of tapes of one make: the ops, their shapes, how they are joined; not what was saved."""
        number = {node: at for at, node in enumerate((*self.inputs, *self.nodes))}
        found: list[object] = [None if end is None else (number[end[0]], end[1]) for end in self.outputs]
        found += [node.outputs for node in self.inputs]
        for node in self.nodes:
            found += (node.name, node.outputs)
            found += [None if edge is None else (number[edge[0]], edge[1]) for edge in node.inputs]
        return tuple(found)

    @lazy
    def estimates(self) -> dict[Any, Any]:
        """The estimates of tapes of this make, by the questions."""
        if None in self.outputs:  # how large these are stands nowhere on the tape
            return {}
        found = _estimates.get(self.make)
        if found is None:
            if sum(map(len, _estimates)) > MOST_PARTS:
                _estimates.clear()
            found = _estimates[self.make] = {}
        return found

    @property
    def inputs_apart(self) -> bool:
        """True where no input leads to another, as those of the upper part of a tape may.

        PyTorch's engine, asked for both, gives one what goes through the other too.
        """
        above = [edge for node in self.inputs for edge in node.inputs]
        seen: set[Node] = set()
        while above:
            edge = above.pop()
            if edge is not None and edge[0] not in seen:
                if edge[0] in self.inputs:
                    return False
                seen.add(edge[0])
                above += edge[0].inputs
        return True
