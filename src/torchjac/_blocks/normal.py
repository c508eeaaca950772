"""JᵀWJ of a Jacobian with tables, as one list of coordinates whose places are worked out once for its pattern.

Rows with the same columns, as the coordinates of one observation have, are multiplied as one small matrix each, all of
one size in one batch: Σ_r J[r, a] w[r] J[r, b]. Where each of these numbers goes follows from the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .block import Block, Kind
from .maps import Gather, Label
from .pattern import Pattern, narrow, pattern_of, sorted_places

#: A row with so many entries makes its square of pairs; past so many pairs for each entry of J lists are cheaper.
MOST_PAIRS = 32


class Batch(NamedTuple):
    """Groups of rows with the same columns, as many rows and columns in each: where their entries stand."""

    entries: Tensor  # (groups, rows, columns)
    rows: Tensor  # (groups, rows)


class Plan(NamedTuple):
    """The batches, where the numbers of their products go, and the maps of the nonzeros they make."""

    batches: list[Batch]
    places: tuple[Tensor, ...]
    nnz: int
    label: Label
    maps: tuple[Gather, ...]


def normal(
    blocks: Sequence[Block],
    weight: Tensor | None,
    out_shape: Sequence[int],
    in_shape: Sequence[int],
    like: Kind,
) -> list[Block] | None:
    """The block of JᵀWJ, or None where it takes too many products; values are those of a graph that is not recorded."""
    pattern = pattern_of(blocks, out_shape, in_shape, like.device)
    if pattern is None:
        return None
    if "normal" not in pattern.notes:
        pattern.notes["normal"] = _plan(pattern)
    found: Plan | None = pattern.notes["normal"]
    if found is None:
        return None
    values = pattern.fill(blocks, like)
    flat = torch.zeros(found.nnz, dtype=like.dtype, device=like.device)
    for batch, place in zip(found.batches, found.places, strict=True):
        part = values.take(batch.entries)
        left = part if weight is None else part * weight.reshape(-1)[batch.rows].unsqueeze(-1)
        flat.scatter_add_(0, place, (left.mT @ part).reshape(-1))
    count = len(in_shape)
    if not count:  # one scalar by another: no dim has the label
        return [Block(flat.sum(), (), (), ())]
    return [Block(flat, (found.label,), found.maps[:count], found.maps[count:])]


def _plan(pattern: Pattern) -> Plan | None:
    begin, index = pattern.begin.long(), pattern.index.long()
    counts = begin.diff()
    if int((counts**2).sum()) > MOST_PAIRS * max(index.numel(), 1):
        return None
    group = _groups(begin, index, counts)
    heights = torch.bincount(group)
    first = heights.cumsum(0) - heights
    widths = counts[first]
    batches, pairs = [], []
    for height, width in sorted(set(zip(heights.tolist(), widths.tolist(), strict=True))):
        if not width:
            continue
        some = ((heights == height) & (widths == width)).nonzero()[:, 0]
        rows = first[some][:, None] + torch.arange(height, device=first.device)
        entries = begin[rows][:, :, None] + torch.arange(width, device=first.device)
        columns = index[entries[:, 0]]
        batches.append(Batch(entries, rows))
        pairs.append((
            columns[:, :, None].expand(-1, -1, width).reshape(-1),
            columns[:, None, :].expand(-1, width, -1).reshape(-1),
        ))  # fmt: skip
    size = narrow(pattern.columns)
    empty = torch.zeros(0, dtype=size, device=index.device)
    row, column = (torch.cat([empty, *(pair[k].to(size) for pair in pairs)]) for k in (0, 1))
    place, new_row, new_column = sorted_places(row, column)
    maps = [*_unravelled(new_row, pattern.in_shape), *_unravelled(new_column, pattern.in_shape)]
    label = Label(new_row.numel())
    places = place.split([pair[0].numel() for pair in pairs])
    return Plan(batches, places, label.size, label, tuple(Gather(at, (label,)) for at in maps))


def _groups(begin: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """The number of the group of each row: neighbours with the same columns are of one."""
    rows = counts.numel()
    group = torch.zeros(rows, dtype=torch.int64, device=index.device)
    if rows < 2:
        return group
    # An entry that has no equal where the row before has its own.
    row = torch.arange(rows, device=index.device).repeat_interleave(counts)
    before = torch.arange(index.numel(), device=index.device) - counts[(row - 1).clamp(min=0)]
    same = (index == index[before.clamp(min=0)]) & (counts[row] == counts[(row - 1).clamp(min=0)])
    differs = torch.zeros(rows, dtype=torch.bool, device=index.device)
    differs[row[~same]] = True
    differs[1:] |= counts[1:] != counts[:-1]
    group[1:] = differs[1:].cumsum(0)
    return group


def _unravelled(flat: Tensor, shape: Sequence[int]) -> list[Tensor]:
    found = []
    flat = flat.long()
    below = prod(shape)
    for size in shape:
        below //= max(size, 1)
        found.append(flat // max(below, 1) % max(size, 1))
    return found
