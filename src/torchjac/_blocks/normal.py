"""JᵀWJ of a Jacobian with tables: places worked out once for its pattern, and each number computed once.

Rows with the same columns, as the coordinates of one observation have, are multiplied as one small matrix each, all of
one size in one batch: Σ_r J[r, a] w[r] J[r, b] for a ≤ b. Where each of these numbers goes follows from the pattern.
What stands above the diagonal is one block, its mirror image another with the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .block import Block, identity, labels
from .block_views import swapped
from .dense_views import unravelled
from .maps import Gather, Label
from .pattern import Pattern, keep
from .places import Places
from .sort_entries import narrow, sorted_places

#: A row of n entries makes n² pairs; past this number of pairs for each entry of J lists are cheaper.
MOST_PAIRS = 32

#: Groups from which a call for each pair of entries, for all groups at once, is faster than a small matrix for each.
MANY_GROUPS = 64

#: The products that are made before they are summed where they go: they stay in the processor's cache.
PRODUCTS_AT_ONCE = 1 << 17


class GramBatch(NamedTuple):
    """Groups of rows with the same columns, as many rows and columns in each: where their entries stand."""

    entries: Places  # (rows, columns, groups)
    rows: Tensor  # (rows, groups)


class GramPlan(NamedTuple):
    """The batches, where their numbers go, and the maps of what they make: on the diagonal, then above it."""

    batches: list[GramBatch]
    places: tuple[Tensor, ...]
    on_diagonal: int
    diagonal: Block
    above: Block


def normal(pattern: Pattern, values: Callable[[], Tensor], weight: Tensor | None) -> list[Block] | None:
    """Return the blocks of JᵀWJ, or None where it takes too many products; no graph is recorded.

    ``values`` gives those of J, in the order of its pattern.
    """
    found: GramPlan | None = pattern.notes.find("normal", lambda: _plan(pattern))
    if found is None:
        return None
    numbers = values()
    flat = numbers.new_zeros(found.on_diagonal + found.above.on[0].size)
    for batch, place in zip(found.batches, found.places, strict=True):
        part = batch.entries.read(numbers).contiguous()
        left = part if weight is None else part * weight.reshape(-1)[batch.rows].unsqueeze(1)
        flat.scatter_add_(0, place, _pairs(left, part).reshape(-1))
    diagonal, above = flat[: found.on_diagonal], flat[found.on_diagonal :]
    blocks = []
    if found.on_diagonal:
        shape = [label.size for label in found.diagonal.on]
        blocks.append(found.diagonal._replace(value=diagonal.view(shape)))
    if above.numel():
        half = found.above._replace(value=above)
        blocks += [half, swapped(half)]
    return blocks


def _pairs(left: Tensor, right: Tensor) -> Tensor:
    """Σ_r left[r, a, g] right[r, b, g] for a ≤ b, of shape (pairs, groups)."""
    rows, width, groups = right.shape
    if groups < MANY_GROUPS:
        a, b = torch.triu_indices(width, width, device=right.device)
        return (left.permute(2, 1, 0) @ right.permute(2, 0, 1))[:, a, b].mT
    found = right.new_empty(width * (width + 1) // 2, groups)
    begin = 0
    for a in range(width):
        part = found[begin : begin + width - a]
        torch.mul(left[0, a], right[0, a:], out=part)
        for row in range(1, rows):
            part.addcmul_(left[row, a], right[row, a:])
        begin += width - a
    return found


def _plan(pattern: Pattern) -> GramPlan | None:
    begin, index = pattern.begin.long(), pattern.index.long()
    counts = begin.diff()
    if int((counts**2).sum()) > MOST_PAIRS * max(index.numel(), 1):
        return None
    group = _groups(index, counts)
    heights = torch.bincount(group)
    first = heights.cumsum(0) - heights
    widths = counts[first]
    batches, pairs = [], []
    for height, width in sorted(set(zip(heights.tolist(), widths.tolist(), strict=True))):
        if not width:
            continue
        a, b = torch.triu_indices(width, width, device=index.device)
        alike = ((heights == height) & (widths == width)).nonzero()[:, 0]
        for some in alike.split(max(MANY_GROUPS, PRODUCTS_AT_ONCE // a.numel())):
            rows = first[some] + torch.arange(height, device=first.device)[:, None]
            entries = begin[rows][:, None] + torch.arange(width, device=first.device)[:, None]
            columns = index[entries[0]]
            batches.append(GramBatch(Places(entries), rows))
            pairs.append((columns[a].reshape(-1), columns[b].reshape(-1)))
    size = narrow(pattern.columns)
    empty = torch.zeros(0, dtype=size, device=index.device)
    row, column = (torch.cat([empty, *(pair[k].to(size) for pair in pairs)]) for k in (0, 1))
    place, row, column = sorted_places(row, column)
    # The diagonal first.
    above = row != column
    rank = torch.where(above, above.cumsum(0) - 1 + int((~above).sum()), (~above).cumsum(0) - 1)
    return GramPlan(
        batches,
        rank[place].split([pair[0].numel() for pair in pairs]),
        int((~above).sum()),
        _diagonal(pattern, row[~above]),
        _block(row[above], column[above], pattern.in_shape),
    )


def _diagonal(pattern: Pattern, at: Tensor) -> Block:
    """Return the block of a diagonal, without a value: of all of it, or of some places."""
    if at.numel() == pattern.columns:
        block = identity(pattern.in_shape)
        return Block(1.0, labels(block), block.out, block.wrt)
    return _block(at, at, pattern.in_shape)


def _block(row: Tensor, column: Tensor, shape: tuple[int, ...]) -> Block:
    """Return the block of a list of places, without a value; the maps of a diagonal are the same at both ends."""
    label = Label(row.numel())
    out, wrt = (
        tuple([Gather(keep(at), (label,)) for at in unravelled(end.long(), shape)]) for end in (row, column)
    )
    return Block(1.0, (label,), out, out if row is column else wrt)


def _groups(index: Tensor, counts: Tensor) -> Tensor:
    """Return the number of the group of each row: neighbours with the same columns are of one."""
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
