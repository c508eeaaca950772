"""A Jacobian kept as a product, where everything goes through a place that is narrow against both its ends.

R²⁰⁰⁰ → R⁵ → R²⁰⁰⁰ is two factors of 10,000 numbers each, and 4,000,000 multiplied out. If several tensors are
alive at that place, they are taken for one, laid end to end.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor

from .._blocks.block import Block, fitted, stored
from .._blocks.block_views import joined, shifted
from .._blocks.cost import factors_pay
from .._blocks.maps import Map, labels_of
from .._capture.tape import Node, Tape
from .by_order import NotFiniteError, accumulate_in, multiplied
from .order import Order, pick
from .report import Report
from .reverse import accumulate
from .seeds import NO_LIMITS, Limits


class ProgramKey:
    """The identity of the blocks that a walk gives, and the program of it at each run: they differ in values alone.

    ``calls`` counts what is asked of them.
    """

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: dict[Hashable, int] = {}


class Factor(NamedTuple):
    """One factor of a Jacobian: its blocks, the shapes of its two ends, and by what its blocks are known again."""

    blocks: list[Block]
    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    key: ProgramKey | None = None


def accumulate_factors(
    tape: Tape,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits = NO_LIMITS,
    report: Report | None = None,
) -> list[list[list[Factor]]]:
    """Return the factors ``[output][input]``, one or two for each, that hold least.

    Raises:
        RowsTooWideError: as `accumulate` does.
    """
    order = pick(tape, out_shapes, factors=True)
    if order.direction != "reverse":
        try:
            if order.above is not None and order.below is not None:
                return _cut(order, order.above, order.below, out_shapes, limits, report)
            return alone(tape, out_shapes, accumulate_in(order, out_shapes, limits, report))
        except NotFiniteError:
            if report is not None:
                report.steps.clear()
    return alone(tape, out_shapes, accumulate(tape, out_shapes, limits, report))


def alone(
    tape: Tape, out_shapes: Sequence[Sequence[int]], found: list[list[list[Block]]]
) -> list[list[list[Factor]]]:
    """Return blocks ``[output][input]`` as one factor each."""
    return [
        [[Factor(blocks, tuple(shape), node.shape)] for blocks, node in zip(row, tape.inputs, strict=True)]
        for row, shape in zip(found, out_shapes, strict=True)
    ]


def _cut(
    order: Order,
    above: Order,
    below: Order,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits,
    report: Report | None,
) -> list[list[list[Factor]]]:
    left = accumulate_in(above, out_shapes, limits, report)
    right = accumulate_in(below, [node.shape for node in order.middle], limits, report)
    return [
        [
            _factors(upper, [lower[number] for lower in right], order.middle, tuple(shape), node)
            for number, node in enumerate(order.tape.inputs)
        ]
        for upper, shape in zip(left, out_shapes, strict=True)
    ]


def _factors(
    left: Sequence[list[Block]],
    right: Sequence[list[Block]],
    middle: Sequence[Node],
    out_shape: tuple[int, ...],
    below: Node,
) -> list[Factor]:
    """Return the factors of one output and input, or the one they are multiplied to where that holds hardly more."""
    through = [
        (upper, lower, node)
        for upper, lower, node in zip(left, right, middle, strict=True)
        if upper and lower
    ]
    pairs = [(a, b) for upper, lower, _ in through for a in upper for b in lower]
    held = sum(stored(block) for upper, lower, _ in through for block in upper + lower)
    product = min(sum(_stored_by_product(a, b) for a, b in pairs), prod(out_shape) * below.numel)
    if not factors_pay(held, product):
        return [Factor(multiplied(left, right, middle, out_shape, below), out_shape, below.shape)]
    if len(through) == 1:
        ((upper, lower, node),) = through
        return [Factor(upper, out_shape, node.shape), Factor(lower, node.shape, below.shape)]
    meta = below.outputs[0]
    uppers: list[Block] = []
    lowers: list[Block] = []
    at = 0
    for upper, lower, node in through:
        uppers += [block._replace(wrt=(shifted(joined(block.wrt, node.shape), at),)) for block in upper]
        lowers += [block._replace(out=(shifted(joined(block.out, node.shape), at),)) for block in lower]
        at += node.numel
    uppers, lowers = ([fitted(block, meta.dtype, meta.device) for block in side] for side in (uppers, lowers))
    return [Factor(uppers, out_shape, (at,)), Factor(lowers, (at,), below.shape)]


def _stored_by_product(a: Block, b: Block) -> float:
    """About how many numbers the product of two blocks holds: what each holds for every entry between them.

    A dim between them that passes to one end, as the rows of X do through A X Bᵀ, goes on where either holds a
    number for each of its entries.
    """
    if not isinstance(a.value, Tensor) and not isinstance(b.value, Tensor):
        return 0.0
    out, wrt = labels_of(a.out), labels_of(b.wrt)
    held = _outside(a, a.wrt) * _outside(b, b.out)
    for left, right in zip(a.wrt, b.out, strict=True):
        ends = labels_of((left,)), labels_of((right,))
        batch_dims = any(label in out for label in ends[0]) or any(label in wrt for label in ends[1])
        if batch_dims and any(label in a.on or label in b.on for end in ends for label in end):
            held *= min(prod(label.size for label in end) for end in ends)
    return held


def _outside(block: Block, inner: tuple[Map, ...]) -> int:
    """Return how many numbers a block holds for each entry of one end."""
    between = labels_of(inner)
    return prod(label.size for label in block.on if label not in between)
