"""A captured call as if it had returned a range of an output's rows only: a walk of it starts at those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import prod

import torch

from .capture import Captured
from .recognise import graph_between
from .state import normal_mode


def boxes(shape: Sequence[int], begin: int, end: int) -> Iterator[tuple[int | slice, ...]]:
    """Yield the fewest boxes, as keys of a tensor, that a range of its entries in row-major order is cut into.

    >>> list(boxes((3, 4), 2, 9))
    [(0, slice(2, 4, None)), (slice(1, 2, None),), (2, slice(0, 1, None))]
    """
    if begin >= end:
        return
    if not shape:
        yield ()
        return
    inner = prod(shape[1:])
    at, begin, end = begin // inner, begin % inner, end - begin // inner * inner
    if begin and end < inner:
        yield from ((at, *key) for key in boxes(shape[1:], begin, end))
        return
    if begin:
        yield from ((at, *key) for key in boxes(shape[1:], begin, inner))
        at, end = at + 1, end - inner
    whole, rest = end // inner, end % inner
    if whole:
        yield (slice(at, at + whole),)
    yield from ((at + whole, *key) for key in boxes(shape[1:], 0, rest))


def rows_of(captured: Captured, number: int, begin: int, end: int) -> Captured:
    """Return the call with rows ``begin`` to ``end`` of one output, in row-major order, as its outputs: boxes."""
    output = captured.outputs[number]
    inferring = torch.is_inference_mode_enabled()
    with normal_mode() if inferring else nullcontext(), torch.enable_grad():
        if (begin, end) == (0, output.numel()):
            outputs = [output]
        else:
            outputs = [output[key] for key in boxes(output.shape, begin, end)]
        return replace(captured, outputs=outputs, graph=graph_between(outputs, captured.graph.starts))
