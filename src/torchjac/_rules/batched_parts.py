"""Cotangents of parts of a tensor, held until all have come and then joined at once.

A state of a few numbers is selected from again and again: each part alone would be written into zeros of the whole, and
the wholes added.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._capture.tape import Edge, Meta, Node
from .slice_cat_pad import slice_start


class DimPart(NamedTuple):
    """Where a part stands along a dim of a tensor; one that was selected has lost the dim."""

    start: int
    stop: int
    selected: bool


class DimParts(NamedTuple):
    """The rows of cotangents of parts along one dim, and what came to the tensor before."""

    dim: int
    rows: dict[DimPart, Tensor]
    before: DimParts | Tensor | None


#: The cotangents that are held at the tensors of a graph, a dim of rows in front
Waiting: TypeAlias = dict[Edge, Tensor | DimParts]


def hold(node: Node, rows: Tensor, pending: Waiting) -> bool:
    """Let the rows that came to a part of a tensor wait there; tell whether the node takes a part, and did."""
    edge = node.inputs[0]
    if node.name not in ("SelectBackward0", "SliceBackward0") or edge is None:
        return False
    shape, dtype, _ = edge[0].outputs[edge[1]]
    dim = node.saved("dim") % len(shape)
    if node.name == "SelectBackward0":
        start = node.saved("index") % shape[dim]
        part = DimPart(start, start + 1, True)
    else:
        start = slice_start(node, shape[dim])
        part = DimPart(start, start + node.shape[dim], False)
    if rows.dtype is not dtype or (not part.selected and node.saved("step") != 1):
        return False
    waiting = pending.get(edge)
    if type(waiting) is not DimParts or waiting.dim != dim:
        pending[edge] = DimParts(dim, {part: rows}, waiting)
    else:
        other = waiting.rows.get(part)
        waiting.rows[part] = rows if other is None else other + rows
    return True


def joined(waiting: Tensor | DimParts | None, meta: Meta, count: int) -> Tensor | None:
    """Return the pending blocks of a tensor as ``count`` rows of the whole."""
    if type(waiting) is not DimParts:
        return waiting  # type: ignore[return-value]
    whole, before = _whole(waiting, meta, count), joined(waiting.before, meta, count)
    return whole if before is None else before + whole


def _whole(parts: DimParts, meta: Meta, count: int) -> Tensor:
    at = sorted(parts.rows)
    shape, dim = (count, *meta.shape), parts.dim + 1
    if len(at) == 1 or any(a.stop > b.start for a, b in pairwise(at)):
        first, *others = [_in_zeros(part, parts.rows[part], shape, dim) for part in at]
        for other in others:
            first = first + other
        return first
    if len(at) == shape[dim] and all(part.selected for part in at):
        return torch.stack([parts.rows[part] for part in at], dim)
    pieces, reached = [], 0
    for part in (*at, DimPart(shape[dim], shape[dim], False)):
        if part.start > reached:
            gap = (*shape[:dim], part.start - reached, *shape[dim + 1 :])
            pieces.append(torch.zeros(gap, dtype=meta.dtype, device=meta.device))
        if part in parts.rows:
            rows = parts.rows[part]
            pieces.append(rows.unsqueeze(dim) if part.selected else rows)
        reached = part.stop
    return torch.cat(pieces, dim)


def _in_zeros(part: DimPart, rows: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    if part.selected:
        found: Tensor = torch.ops.aten.select_backward.default(rows, shape, dim, part.start)
    else:
        found = torch.ops.aten.slice_backward.default(rows, shape, dim, part.start, part.stop, 1)
    return found
