"""The kind of matrix that a Jacobian is, by its maps, and the kind that `solve` takes it for, by its size too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from math import prod
from typing import NamedTuple

from .._blocks.block import Block, entries
from .._blocks.block_views import joined, same_positions
from .._blocks.maps import Affine, Map
from .factored import most_entries, rank_bound
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks, kept
from .outer import outer

#: A sparse factorisation costs some fifty times more for each number than a dense one; below this many
#: entries, or where one in four is not zero, dense is faster.
SMALL = 64 * 64
FULL = 4

#: Full blocks that come apart are solved so from this many entries on: LAPACK solves 256 unknowns in the time that the
#: calls of a sparse system take.
MANY = 16 * SMALL

#: Blocks on the diagonal up to this size are solved as they are; larger ones only if they are mostly full.
SMALL_BLOCK = 32


class MatrixKind(NamedTuple):
    """A kind by name, and the dims that output and input share if it is block-diagonal."""

    name: str
    dims: tuple[int, ...] = ()


@singledispatch
def kind(form: Form) -> MatrixKind:
    """Return the kind by the maps of the blocks."""
    return kept(form, "kind", lambda: kind_of(form.blocks, form.out_shape, form.in_shape))


@kind.register(ProductOfFactors)
def kind_of_product(form: ProductOfFactors) -> MatrixKind:
    """Compare the rank with the sides first."""
    if rank_bound(form) < min(form.matrix_shape):
        return MatrixKind("low-rank")
    if _is_fuller_than_factors(form):
        return MatrixKind("product")
    return kind_of(form.blocks, form.out_shape, form.in_shape)


def _is_fuller_than_factors(form: ProductOfFactors) -> bool:
    """Return whether a square product of two factors has more entries than a system of both, told by their maps."""
    rows, columns = form.matrix_shape
    if rows != columns or len(form.factors) > 2 or rows * columns <= SMALL:
        return False
    named = prod(form.factors[1].out_shape) + sum(sum(map(entries, factor.blocks)) for factor in form.factors)
    return most_entries(form) > FULL * named


@kind.register(LowRankUpdate)
def kind_of_update(form: LowRankUpdate) -> MatrixKind:
    """Tell the type."""
    return MatrixKind("low-rank plus")


def kind_of(blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> MatrixKind:
    """Return the first that fits of diagonal, block-diagonal, sparse and dense, whatever the size."""
    if is_diagonal(blocks, out_shape, in_shape):
        return MatrixKind("diagonal")
    dims = shared_dims(blocks, out_shape, in_shape)
    if prod(out_shape[dim] for dim in dims) > 1:
        return MatrixKind("block-diagonal", dims)
    return MatrixKind("dense" if prod(out_shape) * prod(in_shape) <= sum(map(entries, blocks)) else "sparse")


def solved_as(form: Form) -> MatrixKind:
    """Return the kind a matrix is best solved as: small or full ones as dense, small or full blocks by themselves."""
    return kept(form, "solved as", lambda: _solved_as(form))


def _solved_as(form: Form) -> MatrixKind:
    found = kind(form)
    if found.name in ("diagonal", "low-rank", "low-rank plus", "product"):
        return found
    rows, columns = form.matrix_shape
    named = sum(map(entries, form.blocks))
    count = prod(form.out_shape[dim] for dim in found.dims)
    if found.dims and max(rows, columns) <= SMALL_BLOCK * count:
        return found
    if rows == columns and named > MANY and isinstance(form, SumOfBlocks):
        apart = outer(form)
        if apart is not None and named > FULL * apart.named:
            return MatrixKind("product")
    if found.dims and rows * columns // count <= FULL * named:
        return found
    return MatrixKind("dense" if rows * columns <= max(SMALL, FULL * named) else "sparse")


def is_diagonal(blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> bool:
    """Return whether every entry named stands on the diagonal of the flattened matrix, which is square."""
    if prod(out_shape) != prod(in_shape):
        return False
    if out_shape == in_shape:
        return len(shared_dims(blocks, out_shape, in_shape)) == sum(size != 1 for size in out_shape)
    return all(same_positions(joined(block.out, out_shape), joined(block.wrt, in_shape)) for block in blocks)


def shared_dims(
    blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the dims along which output and input always agree; those of size 1 are left out.

    Where the shapes differ, only leading ones are looked at: moving others to the front would permute the
    rows unlike the columns.
    """
    found = []
    for dim, (size, other) in enumerate(zip(out_shape, in_shape, strict=False)):
        shared = size == other and all(same_positions(block.out[dim], block.wrt[dim]) for block in blocks)
        if shared and size != 1:
            found.append(dim)
        elif not shared and out_shape != in_shape:
            break
    return tuple(found)


def is_symmetric(blocks: Sequence[Block]) -> bool:
    """Return whether the blocks tell that the matrix is symmetric: each mirrors itself, or another with its values."""
    rest = list(blocks)
    while rest:
        block = rest.pop()
        if _same_maps(block.out, block.wrt):
            continue
        for at, other in enumerate(rest):
            if (
                other.value is block.value
                and other.on == block.on
                and _same_maps(other.out, block.wrt)
                and _same_maps(other.wrt, block.out)
            ):
                del rest[at]
                break
        else:
            return False
    return True


def _same_maps(a: Sequence[Map], b: Sequence[Map]) -> bool:
    return len(a) == len(b) and all(
        x is y or (type(x) is Affine and type(y) is Affine and x == y) for x, y in zip(a, b, strict=True)
    )
