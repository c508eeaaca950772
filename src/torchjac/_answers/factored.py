"""A Jacobian as a product of Jacobians: what goes through the factors, and blocks that are multiplied out late.

J = F₁ F₂ … F_k. Vectors, transposes, rows, diagonals and other products go through the factors; whatever looks at
single blocks sees those of the product, which is formed then and kept.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, overload

from torch import Tensor

from .._blocks.block import Block, entries, labels
from .._blocks.block_views import relabelled
from .._blocks.coordinates import covers_once
from .._blocks.domain import entries_inside
from .._blocks.lazy import lazy
from .._blocks.maps import Affine, Map, labels_of
from .._blocks.product import product
from .._blocks.table_product import product_of_two
from .to_dense import written

if TYPE_CHECKING:
    from .operator import Jacobian


class LateBlocks(Sequence[Block], ABC):
    """Blocks that are formed where someone looks at one."""

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, formed once."""

    @overload
    def __getitem__(self, key: int) -> Block: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Block, ...]: ...
    def __getitem__(self, key: int | slice) -> Block | tuple[Block, ...]:
        """A block, or some."""
        return self.blocks[key]

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)


class Chain(LateBlocks):
    """The blocks of a product, multiplied out where someone looks at one."""

    def __init__(self, factors: Sequence[Jacobian]) -> None:
        self.factors = tuple(factors)

    @lazy
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the product; the matrices between are multiplied where that is cheapest."""
        factors = list(self.factors)
        while len(factors) > 1:
            at = min(range(len(factors) - 1), key=lambda n: _work(factors[n], factors[n + 1]))
            factors[at : at + 2] = [multiplied(factors[at], factors[at + 1])]
        return tuple(factors[0].blocks)


def chained(factors: Sequence[Jacobian]) -> Jacobian:
    """Return the product of some Jacobians, as a chain of those that hold less apart than together.

    Two neighbours are multiplied where their product, written out, holds no more than they do.
    """
    found = [part for factor in factors for part in factor.factors or (factor,)]
    at = 0
    while at < len(found) - 1:
        a, b = found[at : at + 2]
        if not holds_less(a, b):
            found[at : at + 2] = [multiplied(a, b)]
            at = max(at - 1, 0)
        else:
            at += 1
    if len(found) == 1:
        return found[0]
    return replace(found[0], in_shape=found[-1].in_shape, blocks=Chain(found))


def holds_less(a: Jacobian, b: Jacobian) -> bool:
    """Return whether two factors hold less apart than their product would, written out."""
    return a.stored + b.stored < prod(a.out_shape) * prod(b.in_shape)


def multiplied(a: Jacobian, b: Jacobian) -> Jacobian:
    """Return the product of two Jacobians as one list of blocks."""
    found = product(a.blocks, b.blocks, (a.out_shape, a.in_shape, b.in_shape), a)
    return replace(a, in_shape=b.in_shape, blocks=tuple(found))


def rank_bound(jacobian: Jacobian) -> int:
    """Return the most independent rows it can have, by its shapes and those between its factors."""
    ends = [jacobian.out_shape, *(factor.in_shape for factor in jacobian.factors or (jacobian,))]
    return min(map(prod, ends))


def most_entries(jacobian: Jacobian) -> int:
    """Return a bound of the entries that the product names, from the maps of two factors; all of them for more."""
    size = prod(jacobian.shape)
    if len(jacobian.factors) > 2:
        return size
    left, right = jacobian.factors
    pairs = [(a, b) for a in left.blocks for b in right.blocks]
    return min(size, sum(min(_paths(a, b.out, b), _paths(b, a.wrt, a)) for a, b in pairs))


def _paths(block: Block, meeting: tuple[Map, ...], other: Block) -> int:
    """The entries of a block, each as often as another one has entries where it meets it; huge if that is unknown."""
    if not all(type(map_) is Affine and len(map_.terms) < 2 for map_ in meeting):
        return sys.maxsize
    bound = labels_of(meeting)
    return entries(block) * prod(label.size for label in labels(other) if label not in bound)


def is_full(jacobian: Jacobian) -> bool:
    """Return whether every entry is named, told by factors that each name all of theirs."""
    return all(
        any(
            covers_once(block, factor.shape) and entries_inside(block) == factor.shape.numel()
            for block in factor.blocks
        )
        for factor in jacobian.factors
    )


def diagonal_blocks(jacobian: Jacobian, dims: tuple[int, ...]) -> Tensor:
    """Return the entries at which output and input agree along some dims, as `parts.diagonal_blocks` gives them.

    D[d, o; i] = Σ_m A[d, o; m] B[m; d, i]: the output's dims d go along as dims of what is between, and no entry
    off the diagonal is formed.
    """
    left = jacobian.factors[0]
    right = chained(jacobian.factors[1:])
    rest_out = [dim for dim in range(len(left.out_shape)) if dim not in dims]
    rest_in = [dim for dim in range(len(right.in_shape)) if dim not in dims]
    tied = tuple(left.out_shape[dim] for dim in dims)
    found = []
    for a in left.blocks:
        for b in map(relabelled, right.blocks):
            upper = a._replace(
                out=tuple(a.out[dim] for dim in (*dims, *rest_out)),
                wrt=(*a.wrt, *(a.out[dim] for dim in dims)),
            )
            lower = b._replace(
                out=(*b.out, *(b.wrt[dim] for dim in dims)), wrt=tuple(b.wrt[dim] for dim in rest_in)
            )
            found.append(product_of_two(upper, lower, (*left.in_shape, *tied), jacobian.device))
    shape = [left.out_shape[dim] for dim in (*dims, *rest_out)]
    return written(found, shape, [right.in_shape[dim] for dim in rest_in], jacobian)


def _work(a: Jacobian, b: Jacobian) -> int:
    return prod(a.out_shape) * prod(a.in_shape) * prod(b.in_shape)
