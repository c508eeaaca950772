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

from torch import Tensor

from .capture import Captured, capture
from .recognise import graph_between
from .samples import samples_tell
from .vmap_levels import Levels, Physical, levels_entered, levels_left, lifted, lowered

#: name → what a batching rule does that autograd, beneath it, differentiates wrongly (torch 2.9-2.13)
WRONG_BENEATH: dict[str, str] = {
    "ScatterBackward0": "that of select_scatter writes an entry once for each position, and each counts",
}


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
        in_levels = self.in_levels[number]
        return tuple([level for level in self.out_levels[output] if level not in in_levels])

    def inside(self, answer: Tensor, output: int, number: int) -> Tensor:
        """Return the derivative of an output by an input, found beneath, as it is seen inside the levels."""
        rank = self.outputs[output].dim()
        levels, order = _placed(self.out_levels[output], self.in_levels[number], rank, answer.dim())
        if order is not None:
            answer = answer.permute(order)
        return lifted(answer.contiguous(), levels)


@lru_cache(maxsize=1024)
def _placed(
    out_levels: Levels, in_levels: Levels, rank: int, dims: int
) -> tuple[Levels, tuple[int, ...] | None]:
    """Return the levels of a derivative, and how its dims are permuted to have theirs first.

    The levels of the output that the input lacks are its first dims; those of the input follow the output's own.
    """
    kept = [level for level in out_levels if level not in in_levels]
    at = {level: dim for dim, level in enumerate(kept)}
    at |= {level: len(kept) + rank + dim for dim, level in enumerate(in_levels)}
    levels = tuple(sorted(at))
    first = [at[level] for level in levels]
    order = (*first, *[dim for dim in range(dims) if dim not in first])
    return levels, None if order == tuple(range(dims)) else order


def capture_beneath(
    run: Callable[[list[Tensor]], tuple[list[Tensor], Any]], inputs: Sequence[Tensor]
) -> tuple[Captured, Beneath]:
    """Call a function inside the levels of vmap, and capture beneath them.

    Raises:
        RuntimeError: where the function asks a tensor for what only a level of its own gives it, as a hook or ``data``.
    """
    physical = [lowered(tensor) for tensor in inputs]
    groups: dict[Levels, list[int]] = {}
    for number, (_, levels) in enumerate(physical):
        groups.setdefault(levels, []).append(number)
    with levels_left() as stack:

        def beneath(leaves: list[Tensor]) -> tuple[list[Tensor], Any]:
            with samples_tell(), levels_entered(stack):
                outputs, extra = run(
                    [lifted(leaf, levels) for leaf, (_, levels) in zip(leaves, physical, strict=True)]
                )
            whole = [lowered(output) for output in outputs]
            ends = [_summed(output, levels) for levels in groups for output in whole]
            return ends, (outputs, [levels for _, levels in whole], extra)

        captured = capture(beneath, [tensor for tensor, _ in physical])
    if not captured.graph.names.isdisjoint(WRONG_BENEATH):
        raise RuntimeError("beneath vmap the graph of this function has wrong derivatives")
    outputs, out_levels, extra = captured.extra
    captured.extra = extra
    parts = [
        Part(numbers, _part(captured, at * len(outputs), len(outputs), numbers))
        for at, numbers in enumerate(groups.values())
    ]
    in_levels = [levels for _, levels in physical]
    return captured, Beneath([tensor for tensor, _ in physical], in_levels, out_levels, outputs, parts)


def _summed(physical: Physical, levels: Levels) -> Tensor:
    """Return the sum over the samples that some levels tell apart."""
    tensor, own = physical
    dims = [dim for dim, level in enumerate(own) if level in levels]
    return tensor.sum(dims) if dims else tensor


def _part(captured: Captured, start: int, count: int, numbers: Sequence[int]) -> Captured:
    """Return what leads from some outputs to some inputs."""
    starts = captured.graph.starts
    if count == len(captured.outputs) and len(numbers) == len(starts):
        return captured
    outputs = captured.outputs[start : start + count]
    return replace(captured, outputs=outputs, graph=graph_between(outputs, [starts[n] for n in numbers]))
