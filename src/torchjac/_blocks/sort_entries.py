"""Where entries of blocks with tables stand in a matrix by rows: by a counting sort of their rows and columns.

Where all blocks end in dims that each entry of the dims before has whole, as fields on the nodes of a mesh do, what is
sorted are cells: small matrices, all of one size. Cells of the same maps are sorted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .block import Block
from .dense_views import locate
from .maps import Affine, Label, Map, align, labels_of
from .spelling import spell_maps


class ByRow(NamedTuple):
    """Where each row begins, the column of each nonzero, where the entries of each block go, and if each is alone."""

    begin: Tensor
    column: Tensor
    places: list[Tensor]
    once: bool


def sort_entries(
    blocks: Sequence[Block],
    over: Sequence[tuple[Label, ...]],
    out_shape: Sequence[int],
    in_shape: Sequence[int],
    device: torch.device,
) -> ByRow:
    """Sort the entries of all blocks by rows and then by columns, and join those on one place."""
    out_dims, in_dims = _cell_dims(blocks, out_shape, in_shape)
    high, wide = prod(out_shape[out_dims:]), prod(in_shape[in_dims:])
    rows = prod(out_shape[:out_dims])
    size = narrow(max(rows, prod(in_shape[:in_dims])))
    lists: dict[object, tuple[Tensor, Tensor]] = {}  # rows and columns of cells
    keys = []
    for block in blocks:
        out, wrt = block.out[:out_dims], block.wrt[:in_dims]
        spelled = spell_maps(out, wrt)
        keys.append(spelled.law)
        if spelled.law not in lists:
            named = spelled.over
            ends = _flat(out, named, out_shape, device), _flat(wrt, named, in_shape, device)
            lists[spelled.law] = ends[0].to(size), ends[1].to(size)
    empty = torch.zeros(0, dtype=size, device=device)
    place, row, column = sorted_places(
        torch.cat([empty, *(cells[0] for cells in lists.values())]),
        torch.cat([empty, *(cells[1] for cells in lists.values())]),
    )
    # Row i of cell number k in its row of cells, which are w wide, begins at w (h before + i count + k).
    counts = torch.bincount(row, minlength=rows)
    before = torch.zeros(rows + 1, dtype=torch.int64, device=device)
    torch.cumsum(counts, 0, out=before[1:])
    nnz = row.numel() * high * wide
    begin = torch.empty(rows * high + 1, dtype=narrow(nnz), device=device)
    along = torch.arange(high, device=device)
    begin[-1] = nnz
    begin[:-1] = (wide * (high * before[:-1, None] + along * counts[:, None])).view(-1)
    apart = counts.index_select(0, row)
    first = (high - 1) * before.index_select(0, row) + torch.arange(row.numel(), device=device)
    index = torch.empty(nnz, dtype=narrow(prod(in_shape)), device=device)
    columns = wide * column.to(index.dtype)[:, None] + torch.arange(wide, dtype=index.dtype, device=device)
    for i in range(high):
        index.view(-1, wide)[first + i * apart] = columns
    found = dict(zip(lists, place.split([cells[0].numel() for cells in lists.values()]), strict=True))
    places = []
    for block, key, labels in zip(blocks, keys, over, strict=True):
        cells, named = found[key], spell_maps(block.out[:out_dims], block.wrt[:in_dims]).over
        at = align(first[cells].view([label.size for label in named]), named, labels)
        if high > 1:
            step = align(apart[cells].view([label.size for label in named]), named, labels)
            at = at + locate(block.out[out_dims:], labels, out_shape[out_dims:], device) * step
        if wide > 1:
            at = wide * at + locate(block.wrt[in_dims:], labels, in_shape[in_dims:], device)
        places.append(at.to(narrow(nnz)).expand([label.size for label in labels]).reshape(-1))
    once = len(lists) == len(blocks) and row.numel() == place.numel()
    return ByRow(begin, index, places, once)


def _cell_dims(blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int]) -> tuple[int, int]:
    """Return from which dims of the output and of the input on each block has cells; all of them where it has none.

    A block that fills only diagonals of its cells needs another one that fills the same cells.
    """
    none = len(out_shape), len(in_shape)
    if 0 in (*out_shape, *in_shape):
        return none
    dims = _after_outer(
        blocks,
        _first_whole([block.out for block in blocks], out_shape),
        _first_whole([block.wrt for block in blocks], in_shape),
    )
    full: set[object] = set()
    partly: set[object] = set()
    for block in blocks:
        out, wrt = block.out[dims[0] :], block.wrt[dims[1] :]
        shared = not set(labels_of(out)).isdisjoint(labels_of(wrt))
        (partly if shared else full).add(spell_maps(block.out[: dims[0]], block.wrt[: dims[1]]).law)
    return dims if partly <= full else none


def _after_outer(blocks: Sequence[Block], out_dim: int, in_dim: int) -> tuple[int, int]:
    """Return the first dims, from some on, none of whose labels is in two dims of one end or in dims before."""
    ends = [out_dim, in_dim]
    before: list[int] = []
    while before != ends:
        before = list(ends)
        for block in blocks:
            outer = set(labels_of((*block.out[: ends[0]], *block.wrt[: ends[1]])))
            for side, maps in enumerate((block.out, block.wrt)):
                while not _is_new(maps[ends[side] :], outer):
                    ends[side] += 1
    return ends[0], ends[1]


def _is_new(maps: tuple[Map, ...], outer: set[Label]) -> bool:
    """Return whether maps of one label each have labels of their own."""
    found = labels_of(maps)
    return outer.isdisjoint(found) and len(found) == sum(len(labels_of((map_,))) for map_ in maps)


def _first_whole(maps: Sequence[tuple[Map, ...]], shape: Sequence[int]) -> int:
    """Return the first dim of those at the end along which every block has a label for all of it."""
    dim = len(shape)
    while dim and all(_is_whole(each[dim - 1], shape[dim - 1]) for each in maps):
        dim -= 1
    return dim


def _is_whole(map_: Map, size: int) -> bool:
    if type(map_) is not Affine or map_.offset:
        return False
    return [(label.size, step) for label, step in map_.terms] == [(size, 1)] or (size == 1 and not map_.terms)


def _flat(maps: Sequence[Map], over: tuple[Label, ...], shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the positions in the flattened dims, one for each value of the labels."""
    found = locate(maps, over, shape[: len(maps)], device)
    return found.expand([label.size for label in over]).reshape(-1)


def narrow(largest: int) -> torch.dtype:
    """Return the integers that count so far and take the least memory."""
    return torch.int32 if largest < 2**31 else torch.int64


def rows_of(begin: Tensor, nnz: int) -> Tensor:
    """Return the row of each nonzero, by where each row begins and the last one ends."""
    rows = begin.numel() - 1
    numbers = torch.arange(rows, dtype=narrow(rows), device=begin.device)
    return numbers.repeat_interleave(begin.diff(), output_size=nnz)


def sorted_places(row: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each entry goes among the nonzeros, row by row, and the row and the column of each nonzero.

    Sorted by columns and then by rows: of int32, PyTorch sorts by counting, in time that is linear (torch 2.13).
    """
    order = column.argsort(stable=True)
    order = order.index_select(0, row.index_select(0, order).argsort(stable=True))
    row, column = row.index_select(0, order), column.index_select(0, order)
    new = torch.ones_like(row, dtype=torch.bool)
    new[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    place = torch.empty(row.numel(), dtype=torch.int64, device=row.device)
    place[order] = new.cumsum(0) - 1
    return place, row[new], column[new]
