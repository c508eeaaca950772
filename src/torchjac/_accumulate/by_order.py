"""Accumulating a tape in an order: from one end, or from both to a cut and multiplied there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._blocks.block import Block
from .._blocks.merge import merge
from .._blocks.product import product
from .._blocks.tracing import is_finite
from .._capture.tape import Node, Tape
from .forward import accumulate_forward
from .order import Order, pick
from .report import Report
from .reverse import accumulate
from .seeds import NO_LIMITS, Limits


class NotFiniteError(ArithmeticError):
    """A number on the way is infinite or NaN, and the orders differ in what becomes of it."""


def accumulate_best(
    tape: Tape,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits = NO_LIMITS,
    report: Report | None = None,
    order: Order | None = None,
) -> list[list[list[Block]]]:
    """Return the blocks of every output with respect to every input, in an order, or the one that costs least.

    Where numbers on the way are not finite, it is reverse order, whose zeros drop what autograd's drop.
    """
    order = order or pick(tape, out_shapes)
    if order.direction != "reverse":
        try:
            return accumulate_in(order, out_shapes, limits, report)
        except NotFiniteError:
            if report is not None:
                report.steps.clear()
    return accumulate(tape, out_shapes, limits, report)


def accumulate_in(
    order: Order, out_shapes: Sequence[Sequence[int]], limits: Limits, report: Report | None
) -> list[list[list[Block]]]:
    """Return the blocks of every output with respect to every input, in an order.

    Raises:
        NotFiniteError: if a number of a factor is not finite, where that can be known.
        RowsTooWideError: as `accumulate` does.
    """
    if order.above is None or order.below is None:
        walk = accumulate if order.direction == "reverse" else accumulate_forward
        found = walk(order.tape, out_shapes, limits, report)
        _check_finite(found)
        return found
    left = accumulate_in(order.above, out_shapes, limits, report)
    right = accumulate_in(order.below, [node.shape for node in order.middle], limits, report)
    inputs = list(order.tape.inputs)
    return [
        [
            multiplied(row, [column[number] for column in right], order.middle, shape, node)
            for number, node in enumerate(inputs)
        ]
        for row, shape in zip(left, out_shapes, strict=True)
    ]


def multiplied(
    left: Sequence[list[Block]],
    right: Sequence[list[Block]],
    middle: Sequence[Node],
    out_shape: Sequence[int],
    below: Node,
) -> list[Block]:
    """Σ_t (∂out/∂t) (∂t/∂in) over the tensors of a cut."""
    found: list[Block] = []
    for upper, lower, node in zip(left, right, middle, strict=True):
        if upper and lower:
            found += product(upper, lower, (out_shape, node.shape, below.shape), node.outputs[0])
    return merge(found, out_shape, below.shape, below.outputs[0])


def _check_finite(found: list[list[list[Block]]]) -> None:
    for row in found:
        for blocks in row:
            for block in blocks:
                value = block.value
                if isinstance(value, Tensor) and not is_finite(value):
                    raise NotFiniteError
