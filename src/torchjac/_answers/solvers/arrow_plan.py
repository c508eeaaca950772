"""Partition a matrix into small blocks and a border by its pattern, once for all matrices of one make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy
import torch

from ..._blocks.places import Places
from .block_groups import Ends, Grouping, grouping
from .matrix import Array, MatrixPattern
from .schur import Products, alike, pairs_of, products

#: The most unknowns of the border, which are solved as a dense system, and the part of all that they are at most.
MOST_BORDER = 4000
BORDER_PART = 8

#: Unknowns of a block, which is dense.
MOST_BLOCK = 64

#: The factor by which unknowns of the border have more nonzeros than any other.
GAP = 3

#: Products of what a block has in the border's rows and columns, for each nonzero of the matrix.
MOST_PRODUCTS = 24


class Batch(NamedTuple):
    """Blocks of one size with borders of one size: where their numbers stand among the nonzeros, and their unknowns."""

    unknowns: Places  # (blocks, size)
    inner: Places  # (blocks, size, size)
    right: Places  # (blocks, size, columns of the border)
    below: Places  # (blocks, size, rows of the border): what stands below a block, transposed
    groups: Grouping


class Plan(NamedTuple):
    """A partition of the unknowns of a matrix.

    ``schur`` tells where the products of blocks go in the Schur complement.
    """

    border: Places
    corner: Places
    batches: list[Batch]
    schur: Sequence[Products]


def plan(pattern: MatrixPattern) -> Plan | None:
    """Return how a matrix falls apart into small blocks and a border, if it does."""
    return pattern.notes.find(("arrow", pattern.symmetric, pattern.law), lambda: _plan(pattern))


def _plan(pattern: MatrixPattern) -> Plan | None:
    size, row, column = pattern.size, pattern.row, pattern.index
    degree = numpy.bincount(row, minlength=size) + numpy.bincount(column, minlength=size)
    border = _border(degree)
    if border is None:
        return None
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    inside = ~border
    both = inside[row] & inside[column]
    graph = csr_array((numpy.ones(both.sum(), bool), (row[both], column[both])), shape=(size, size))
    _, member = connected_components(graph, directed=False)
    member = numpy.where(border, -1, member)
    names, member_of = numpy.unique(member[inside], return_inverse=True)
    block = numpy.full(size, -1)
    block[inside] = member_of
    count = numpy.bincount(member_of, minlength=len(names))
    if count.max() > MOST_BLOCK:
        return None
    return _batches(pattern, border, block, count)


def _border(degree: Array) -> Array | None:
    """Return the unknowns that far more nonzeros stand with than with any other: those before the widest gap."""
    order = numpy.sort(degree)[::-1]
    most = min(MOST_BORDER, len(order) // BORDER_PART)
    if most < 1:
        return None
    ratio = order[:most] / numpy.maximum(order[1 : most + 1], 1)
    cut = int(ratio.argmax())
    return degree >= order[cut] if ratio[cut] >= GAP else None


def _batches(pattern: MatrixPattern, border: Array, block: Array, count: Array) -> Plan | None:
    size, row, column, nnz = pattern.size, pattern.row, pattern.index, len(pattern.index)
    outer = numpy.flatnonzero(border)
    at_border = numpy.full(size, -1)
    at_border[outer] = numpy.arange(len(outer))
    e = numpy.flatnonzero((block[row] >= 0) & border[column])
    f = numpy.flatnonzero(border[row] & (block[column] >= 0))
    met = ((block[row[e]], at_border[column[e]]), (block[column[f]], at_border[row[f]]))
    together, tile = alike([pairs_of(*each, len(count), len(outer))[0] for each in met], len(outer))
    outer = outer[together]
    at_border[outer] = numpy.arange(len(outer))
    # Unknowns in the order of their blocks, and the place of each in its own.
    order = numpy.argsort(block, kind="stable")[len(outer) :]
    first = numpy.cumsum(count) - count
    inner_place = numpy.full(size, -1)
    inner_place[order] = numpy.arange(len(order)) - first[block[order]]
    e_pairs, e_slot, e_count = pairs_of(block[row[e]], at_border[column[e]], len(count), len(outer))
    f_pairs, f_slot, f_count = pairs_of(block[column[f]], at_border[row[f]], len(count), len(outer))
    if int((e_count.astype(numpy.int64) * f_count).sum()) > MOST_PRODUCTS * nnz + len(outer) ** 2:
        return None
    c = numpy.flatnonzero((block[row] >= 0) & (block[column] >= 0))
    corner = numpy.full((len(outer), len(outer)), nnz)
    b = numpy.flatnonzero(border[row] & border[column])
    corner[at_border[row[b]], at_border[column[b]]] = b
    kinds, kind = numpy.unique(numpy.stack([count, e_count, f_count], 1), axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    number = numpy.zeros(len(count), int)
    batches: list[Batch] = []
    met_by: dict[int, tuple[Ends, Grouping]] = {}
    for which, (side, wide, high) in enumerate(kinds):
        members = numpy.flatnonzero(kind == which)
        columns, rows = (
            pairs[1][numpy.isin(pairs[0], members)].reshape(len(members), width)
            for pairs, width in ((e_pairs, wide), (f_pairs, high))
        )
        ends = Ends(rows, columns, int(side))
        groups, apart = grouping(ends)
        members, ends = members[apart], ends._replace(rows=rows[apart], columns=columns[apart])
        number[members] = numpy.arange(len(members))
        unknowns = order[first[members][:, None] + numpy.arange(side)]
        inner = numpy.full((len(members), side, side), nnz)
        at = c[kind[block[row[c]]] == which]
        inner[number[block[row[at]]], inner_place[row[at]], inner_place[column[at]]] = at
        right = numpy.full((len(members), side, wide), nnz)
        some = kind[block[row[e]]] == which
        at = e[some]
        right[number[block[row[at]]], inner_place[row[at]], e_slot[some]] = at
        below = numpy.full((len(members), side, high), nnz)
        some = kind[block[column[f]]] == which
        at = f[some]
        below[number[block[column[at]]], inner_place[column[at]], f_slot[some]] = at
        if wide and high:
            met_by[len(batches)] = ends, groups
        at = [_places(pattern, table) for table in (inner, right, below)]
        batches.append(Batch(Places(torch.from_numpy(unknowns)), at[0], at[1], at[2], groups))
    schur = products(met_by, tile, len(outer), pattern.symmetric)
    return Plan(Places(torch.from_numpy(outer)), _places(pattern, corner), batches, schur)


def _places(pattern: MatrixPattern, table: Array) -> Places:
    """Return where nonzeros stand among the values that are given; one past the last is a zero."""
    nnz = len(pattern.index)
    if pattern.source is None:
        return Places(torch.from_numpy(table), nnz)
    size = int(pattern.source.max(initial=-1)) + 1
    return Places(torch.from_numpy(numpy.append(pattern.source, size)[table]), size)
