"""A matrix of Jacobians as one: block systems, as the optimality conditions of a constrained problem."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeVar

from .._blocks.block import Block
from .._blocks.block_views import joined, shifted
from .._blocks.maps import constant
from .._blocks.merge import merge
from .base import Answer
from .forms import Form, ProductOfFactors, SumOfBlocks

A = TypeVar("A", bound=Answer)


def block(parts: Sequence[Sequence[A | None]]) -> A:
    """Return one Jacobian of a matrix of them, rows of parts from the top; None is zero.

    Its output and input are vectors: the entries of each part's, one part after the other.

    Args:
        parts: as many in each row. Parts of one row have outputs of one size, those of one column inputs.

    Raises:
        TypeError: if a part is neither a Jacobian nor None.
        ValueError: if the rows differ in length, sizes, dtypes or devices do not fit, or one has only zeros.

    Example:
        >>> import torch
        >>> import torchjac
        >>> x = torch.ones(2)
        >>> H = torchjac.jacobian(torchjac.grad(lambda x: (x**3).sum()))(x)
        >>> A = torchjac.jacobian(lambda x: x.sum(0, keepdim=True))(x)
        >>> torchjac.block([[H, A.mT], [A, None]]).to_dense()
        tensor([[6., 0., 1.],
                [0., 6., 1.],
                [1., 1., 0.]])
    """
    rows = [parts, *parts] if isinstance(parts, (tuple, list)) else [parts]
    if not all(isinstance(row, (tuple, list)) for row in rows):
        raise TypeError("block: needs a list of rows of Jacobians, as [[A, B], [C, None]]")
    given = [part for row in parts for part in row if part is not None]
    wrong = next((part for part in given if not isinstance(part, Answer)), None)
    if wrong is not None:
        raise TypeError(f"block: each part must be a Jacobian or None, got {type(wrong).__name__}")
    found = bordered([[None if part is None else part.form for part in row] for row in parts])
    return given[0]._with(found)


def bordered(rows: Sequence[Sequence[Form | None]]) -> SumOfBlocks:
    """Return one form of a matrix of them."""
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"block: needs rows of equal length, got {[len(row) for row in rows]}")
    heights = [
        _size([prod(part.out_shape) for part in row if part is not None], f"row {k}")
        for k, row in enumerate(rows)
    ]
    widths = [
        _size([prod(row[k].in_shape) for row in rows if row[k] is not None], f"column {k}")  # type: ignore[union-attr]
        for k in range(len(rows[0]))
    ]
    given = [part for row in rows for part in row if part is not None]
    first = given[0]
    kinds = {(part.dtype, part.device) for part in given}
    if len(kinds) > 1:
        raise ValueError(f"block: parts must have one dtype and device, got {sorted(map(str, kinds))}")
    found = []
    for i, row in enumerate(rows):
        for k, part in enumerate(row):
            if part is None:
                continue
            for each in part.blocks:
                each = _lowered(each, part.out_shape, sum(heights[:i]))
                wrt = joined(each.wrt, part.in_shape)
                found.append(each._replace(wrt=(shifted(wrt, sum(widths[:k])),)))
    shapes = (sum(heights),), (sum(widths),)
    return SumOfBlocks(*shapes, first.dtype, first.device, tuple(merge(found, *shapes, first)))


def stacked(parts: Sequence[Form]) -> Form:
    """Return one Jacobian of the outputs of several by one input, laid end to end; a product alone stays one."""
    first = parts[0]
    if len(parts) == 1 and isinstance(first, ProductOfFactors):
        return ProductOfFactors((stacked(first.factors[:1]), *first.factors[1:]))
    found, at = [], 0
    for part in parts:
        found += [_lowered(each, part.out_shape, at) for each in part.blocks]
        at += prod(part.out_shape)
    if len(parts) > 1:
        found = merge(found, (at,), first.in_shape, first)
    return SumOfBlocks((at,), first.in_shape, first.dtype, first.device, tuple(found))


def side_by_side(parts: Sequence[Form]) -> SumOfBlocks:
    """Return one Jacobian of an output by the entries of several inputs, one input after the other."""
    first, found, at = parts[0], [], 0
    for part in parts:
        for each in part.blocks:
            found.append(each._replace(wrt=(shifted(joined(each.wrt, part.in_shape), at),)))
        at += prod(part.in_shape)
    found = merge(found, first.out_shape, (at,), first)
    return SumOfBlocks(first.out_shape, (at,), first.dtype, first.device, tuple(found))


def placed(form: Form, key: tuple[int | slice, ...]) -> list[Block]:
    """Return the blocks of a Jacobian of ``output[key]``, a box of the output, as blocks of that of the output."""
    found = []
    for block in form.blocks:
        rest = iter(block.out)
        out = [constant(at) if isinstance(at, int) else shifted(next(rest), at.start) for at in key]
        found.append(block._replace(out=(*out, *rest)))
    return found


def _lowered(block: Block, out_shape: tuple[int, ...], by: int) -> Block:
    """Return a block with its output's dims joined, and moved down by some rows."""
    return block._replace(out=(shifted(joined(block.out, out_shape), by),))


def _size(sizes: list[int], what: str) -> int:
    if len(set(sizes)) != 1:
        told = f"sizes {sizes}" if sizes else "only zeros, whose size nothing tells"
        raise ValueError(f"block: {what} must have parts of one size, got {told}")
    return sizes[0]
