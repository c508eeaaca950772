"""Capture beneath vmap: the function runs inside the levels, and plain autograd records what it does to whole batches.

Samples never mix, so the derivative of a sum over samples with respect to one of them is that of its own output: an
input that is batched is differentiated through such a sum, and one cotangent serves all samples. One that is not
has a derivative for each sample, a row of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._blocks.lazy import lazy
from . import samples  # noqa: F401  (it lets samples tell)
from .batching_rules import complete_rules
from .capture import Captured, active_vmaps, capture_in_autograd
from .graph import Graph, read_graph
from .recognise import graph_between
from .vmap_levels import Levels, levels_entered, levels_left, lifted, lowered


def _writes_twice(captured: Captured) -> bool:
    """Return whether the graph is of select_scatter's batching rule, of which autograd makes something wrong.

    It is a scatter that writes an entry once for each position, at one index for all, and each counts (torch 2.9-2.14).
    """
    if "ScatterBackward0" not in captured.graph.names:
        return False
    nodes = [fn for fn in captured.graph.nodes if type(fn).__name__ == "ScatterBackward0"]
    return any(not any(fn._saved_index.stride()) for fn in nodes)


class Part(NamedTuple):
    """The capture for some inputs, all batched by the same levels."""

    numbers: list[int]
    captured: Captured


class Beneath(NamedTuple):
    """A call inside vmap: its physical inputs, their levels and those of the outputs, and the parts of its capture.

    ``outputs`` are as the function returned them, inside the levels; those of the parts are physical.
    """

    inputs: list[Tensor]
    in_levels: list[Levels]
    out_levels: list[Levels]
    outputs: list[Tensor]
    parts: list[Part]

    def kept(self, output: int, number: int) -> Levels:
        """Return the levels by whose samples an output was not summed for an input: only it is batched by them."""
        return _without(self.out_levels[output], self.in_levels[number])

    def inside(self, answer: Tensor, output: int, number: int) -> Tensor:
        """Return the derivative of an output by an input, found beneath, as it is seen inside the levels.

        The first dims are those of the input's levels, then come those of the output.
        """
        levels, order = _ascending(self.in_levels[number], self.out_levels[output])
        if order is not None:
            answer = answer.permute(*order, *range(len(order), answer.dim())).contiguous()
        return lifted(answer, levels)


def capture_beneath(
    run: Callable[[list[Tensor]], tuple[list[Tensor], Any]], inputs: Sequence[Tensor], copies: bool = False
) -> tuple[Captured, Beneath]:
    """Call a function inside the levels of vmap, and capture beneath them.

    With ``copies`` every input that is not batched has one for each sample.

    Raises:
        RuntimeError: where the function asks a tensor for what only a level of its own gives it, as a hook or ``data``.
    """
    complete_rules()
    physical, in_levels = _all_copied(inputs) if copies else _all_lowered(inputs)
    groups: dict[Levels, list[int]] = {}
    for number, levels in enumerate(in_levels):
        groups.setdefault(levels, []).append(number)
    with levels_left() as stack:

        def beneath(leaves: list[Tensor]) -> tuple[list[Tensor], Any]:
            with levels_entered(stack):
                outputs, extra = run(list(map(lifted, leaves, in_levels)))
            whole, out_levels = _all_lowered(outputs)
            return whole, (outputs, out_levels, extra)

        captured = capture_in_autograd(beneath, physical)
    if _writes_twice(captured):
        raise RuntimeError("beneath vmap the graph of this function has wrong derivatives")
    outputs, out_levels, captured.extra = captured.extra
    parts = []
    for levels, numbers in groups.items():
        dims = tuple([_samples(own, levels) for own in out_levels])
        parts.append(Part(numbers, _part(captured, numbers, dims)))
    return captured, Beneath(physical, in_levels, out_levels, outputs, parts)


def _all_lowered(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Levels]]:
    physical, levels = [], []
    for tensor in tensors:
        whole, own = lowered(tensor)
        physical.append(whole)
        levels.append(own)
    return physical, levels


def _all_copied(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Levels]]:
    """Return physical tensors with the dims of all levels, and these levels."""
    active = active_vmaps()
    levels = tuple([level for level, _ in active])
    copied = []
    for tensor in tensors:
        whole, own = lowered(tensor)
        shape = [whole.shape[own.index(level)] if level in own else 1 for level in levels]
        sample = whole.shape[len(own) :]
        copied.append(whole.reshape(*shape, *sample).expand(*[size for _, size in active], *sample))
    return copied, [levels] * len(copied)


@lru_cache(maxsize=1024)
def _without(own: Levels, levels: Levels) -> Levels:
    """Return those of some levels that are not among others."""
    return tuple([level for level in own if level not in levels])


@lru_cache(maxsize=1024)
def _ascending(in_levels: Levels, out_levels: Levels) -> tuple[Levels, tuple[int, ...] | None]:
    """Return the levels of an answer, the outermost first, and the order of its first dims if that is another one."""
    found = (*in_levels, *_without(out_levels, in_levels))
    levels = tuple(sorted(found))
    return levels, None if levels == found else tuple([found.index(level) for level in levels])


@lru_cache(maxsize=1024)
def _samples(own: Levels, levels: Levels) -> tuple[int, ...]:
    """Return the dims of a physical tensor that tell samples of some levels apart."""
    return tuple([dim for dim, level in enumerate(own) if level in levels])


def _part(captured: Captured, numbers: Sequence[int], dims: tuple[tuple[int, ...], ...]) -> Captured:
    """Return what leads from all outputs, summed over some dims of each, to some inputs."""
    if len(numbers) != captured.graph.inputs:
        starts = captured.graph.starts
        graph = graph_between(captured.outputs, [starts[number] for number in numbers])
        captured = replace(captured, graph=graph)
    return Summed(captured, dims) if any(dims) else captured


class Summed(Captured):
    """A capture whose outputs are summed over samples: added to what was recorded, where a program does not know them.

    ``whole`` is the one that was recorded, ``dims`` are those that each output is summed over.
    """

    def __init__(self, whole: Captured, dims: tuple[tuple[int, ...], ...]) -> None:
        self.whole = whole
        self.dims, self.added = dims, (dims, whole.added)
        self.extra, self.records, self.hooked = whole.extra, whole.records, whole.hooked

    @lazy
    def outputs(self) -> list[Tensor]:
        """The sums."""
        with torch.enable_grad():
            pairs = zip(self.whole.outputs, self.dims, strict=True)
            return [output.sum(dims, dtype=output.dtype) if dims else output for output, dims in pairs]

    @lazy
    def graph(self) -> Graph:
        """The graph with the sums."""
        return read_graph(self.outputs, self.whole.graph.starts)

    @property
    def recorded(self) -> Captured:
        """The capture without the sums."""
        return self.whole

    def made(self, is_read: bool) -> list[Any]:
        """Return the sums and their nodes, or Nones if a program does not read them."""
        if not is_read:
            return [None] * (2 * sum(map(bool, self.dims)))
        sums = [output for output, dims in zip(self.outputs, self.dims, strict=True) if dims]
        return [*sums, *[each.grad_fn for each in sums]]
