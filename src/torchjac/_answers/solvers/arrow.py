"""Block-diagonal but for a border: the blocks are eliminated, the Schur complement solved, and the rest put back.

    A = [C E]        S = B − F C⁻¹ E        x₂ = S⁻¹ (b₂ − F C⁻¹ b₁)        x₁ = C⁻¹ (b₁ − E x₂)
        [F B]

C falls into small blocks once the unknowns of the border are gone, as points do in bundle adjustment once the cameras
are; the blocks of one size are factorised and multiplied as one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from ..._blocks.places import Places
from .matrix import Array, Pattern, UnfitError
from .schur import Ends, Products, add_products, alike, pairs_of, products

#: The border's unknowns, which are solved as a dense system, are at most so many, and this part of all.
MOST_BORDER = 4000
BORDER_PART = 8

#: Unknowns of a block, which is dense.
MOST_BLOCK = 64

#: The unknowns of the border have so many times more nonzeros than any other.
GAP = 3

#: Products of what a block has in the border's rows and columns, for each nonzero of the matrix.
MOST_PRODUCTS = 24

#: A pivot smaller than this part of its block's largest entry would spoil what is eliminated by it.
SMALL_PIVOT = 1e-8


class Batch(NamedTuple):
    """Blocks of one size with borders of one size: where their numbers stand among the nonzeros, and their unknowns.

    A place past the last nonzero is a zero.
    """

    unknowns: Places  # (blocks, size)
    inner: Places  # (blocks, size, size)
    right: Places  # (blocks, size, columns of the border)
    below: Places  # (blocks, rows of the border, size)
    columns: Tensor  # (blocks, columns), or (columns,) where all blocks meet the same
    rows: Tensor  # (blocks, rows), or (rows,) where all blocks meet the same
    same: bool  # whether they do


class Plan(NamedTuple):
    """A partition of the unknowns of a matrix; ``holes`` tells whether any place is a zero.

    ``schur`` tells where the products of blocks that meet different unknowns go in the Schur complement.
    """

    border: Places
    corner: Places
    batches: list[Batch]
    holes: bool
    schur: Sequence[Products]


def plan(pattern: Pattern) -> Plan | None:
    """Return how a matrix falls apart into small blocks and a border, if it does."""
    return pattern.notes.find(("arrow", pattern.symmetric), lambda: _plan(pattern))


def _plan(pattern: Pattern) -> Plan | None:
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


def _batches(pattern: Pattern, border: Array, block: Array, count: Array) -> Plan | None:
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
    ends: dict[int, Ends] = {}
    holes = (corner == nnz).any()
    for which, (side, wide, high) in enumerate(kinds):
        members = numpy.flatnonzero(kind == which)
        number[members] = numpy.arange(len(members))
        unknowns = order[first[members][:, None] + numpy.arange(side)]
        inner = numpy.full((len(members), side, side), nnz)
        at = c[kind[block[row[c]]] == which]
        inner[number[block[row[at]]], inner_place[row[at]], inner_place[column[at]]] = at
        right = numpy.full((len(members), side, wide), nnz)
        some = kind[block[row[e]]] == which
        at = e[some]
        right[number[block[row[at]]], inner_place[row[at]], e_slot[some]] = at
        below = numpy.full((len(members), high, side), nnz)
        some = kind[block[column[f]]] == which
        at = f[some]
        below[number[block[column[at]]], f_slot[some], inner_place[column[at]]] = at
        columns, rows = (
            pairs[1][numpy.isin(pairs[0], members)].reshape(len(members), width)
            for pairs, width in ((e_pairs, wide), (f_pairs, high))
        )
        same = bool((columns == columns[:1]).all() and (rows == rows[:1]).all())
        if same:
            columns, rows = columns[0], rows[0]
        else:
            ends[len(batches)] = Ends(rows, columns, int(side))
        holes = holes or any((table == nnz).any() for table in (inner, right, below))
        at = [Places(torch.from_numpy(table)) for table in (unknowns, inner, right, below)]
        batches.append(
            Batch(at[0], at[1], at[2], at[3], torch.from_numpy(columns), torch.from_numpy(rows), same)
        )
    schur = products(ends, tile, len(outer), pattern.symmetric)
    return Plan(
        Places(torch.from_numpy(outer)), Places(torch.from_numpy(corner)), batches, bool(holes), schur
    )


class Arrow:
    """The factors of the blocks and of the Schur complement."""

    def __init__(self, found: Plan, values: Array, symmetric: bool = False) -> None:
        """Factorise.

        Raises:
            UnfitError: where a block, or the Schur complement, is close to singular, though the matrix need not be.
        """
        self._plan = found
        numbers = torch.from_numpy(values)
        if found.holes:
            numbers = torch.cat([numbers, numbers.new_zeros(1)])
        corner = found.corner.read(numbers)
        taken = torch.zeros(corner.shape, dtype=corner.dtype)
        self._parts: list[tuple[Blocks, Tensor, Tensor]] = []
        solved = []
        for batch in found.batches:
            right = batch.right.read(numbers)
            below = right.mT if symmetric else batch.below.read(numbers)
            blocks = Blocks(batch.inner.read(numbers))
            solved.append(blocks.solve(right))
            self._parts.append((blocks, right, below))
        for each in found.schur:
            each.add(taken, [below for _, _, below in self._parts], solved)
        if symmetric:
            taken = taken.tril() + taken.tril(-1).mT
        for batch, (_, _, below), part in zip(found.batches, self._parts, solved, strict=True):
            if batch.same:
                taken[batch.rows[:, None], batch.columns] += _product_of_all(below, part)
        *self._schur, info = torch.linalg.lu_factor_ex(corner - taken)
        if int(info):
            raise UnfitError("the Schur complement is singular")

    @property
    def told(self) -> str:
        """The partition of the matrix."""
        blocks = sum(batch.unknowns.shape[0] for batch in self._plan.batches)
        return f"{blocks:,} blocks eliminated, Schur complement of {len(self._schur[0]):,} unknowns, dense"

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        found, given = self._plan, torch.from_numpy(right)
        outer = found.border.read(given)
        taken = torch.zeros_like(outer)
        inner = []
        for batch, (blocks, e, f) in zip(found.batches, self._parts, strict=True):
            inner.append(blocks.solve(batch.unknowns.read(given), transposed))
            rows, matrix = (batch.columns, e.mT) if transposed else (batch.rows, f)
            if batch.same:
                taken[rows] += _product_of_all(matrix, inner[-1])
            else:
                at = rows[:, :, None] * right.shape[1] + torch.arange(right.shape[1])
                add_products(taken, at, matrix, inner[-1])
        outer = torch.linalg.lu_solve(*self._schur, outer - taken, adjoint=transposed)
        answer = torch.empty_like(given)
        found.border.write(answer, outer)
        for batch, (blocks, e, f), part in zip(found.batches, self._parts, inner, strict=True):
            columns, matrix = (batch.rows, f.mT) if transposed else (batch.columns, e)
            met = outer[columns]  # of all blocks at once where they meet the same
            product = matrix @ met if met.dim() == 3 else _times(matrix.flatten(0, 1), met).view(part.shape)
            batch.unknowns.write(answer, part - blocks.solve(product, transposed))
        return answer.numpy()

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the determinant: those of the blocks and of the Schur complement."""
        parts = [_slogdet(*self._schur), *(blocks.slogdet() for blocks, _, _ in self._parts)]
        return prod(sign for sign, _ in parts), sum(logarithm for _, logarithm in parts)


def _product_of_all(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum of all blocks' products."""
    return _times(left.transpose(0, 1).flatten(1), right.flatten(0, 1))


def _times(matrix: Tensor, right: Tensor) -> Tensor:
    """Return a product of matrices; one of a single column is that of a vector, which takes half the time."""
    return torch.mv(matrix, right[:, 0])[:, None] if right.shape[1] == 1 else matrix @ right


class Blocks:
    """The factors of a batch of small matrices; those of size one are divided by."""

    def __init__(self, matrices: Tensor) -> None:
        """Factorise.

        Raises:
            UnfitError: where one is close to singular.
        """
        self._single = matrices if matrices.shape[-1] == 1 else None
        self._factors = (
            (matrices, torch.ones((), dtype=torch.int32))
            if self._single is not None
            else torch.linalg.lu_factor_ex(matrices)[:2]
        )
        if self._single is not None:
            unfit = self._single == 0
        else:
            pivots = self._factors[0].diagonal(dim1=-2, dim2=-1).abs().amin(-1)
            unfit = pivots <= SMALL_PIVOT * matrices.abs().flatten(1).amax(-1)
        if bool(unfit.any()):
            raise UnfitError("a block is close to singular")

    def solve(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return the solutions for a batch of right sides."""
        if self._single is not None:
            return right / self._single
        found: Tensor = torch.linalg.lu_solve(*self._factors, right, adjoint=transposed)
        return found

    def slogdet(self) -> tuple[float, float]:
        """Return the sign and the logarithm of the product of all determinants."""
        return _slogdet(*self._factors)


def _slogdet(lu: Tensor, pivots: Tensor) -> tuple[float, float]:
    diagonal = lu.diagonal(dim1=-2, dim2=-1)
    swaps = (pivots != torch.arange(1, diagonal.shape[-1] + 1)).sum()
    return (-1.0) ** int(swaps + (diagonal < 0).sum()), float(diagonal.abs().log().sum())
