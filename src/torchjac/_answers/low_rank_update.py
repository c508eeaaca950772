"""A Jacobian as a sum that is better kept apart: a structured one plus one of low rank, solved by Woodbury's formula.

    (S + U V)⁻¹ = S⁻¹ − S⁻¹ U (I + V S⁻¹ U)⁻¹ V S⁻¹        det(S + U V) = det S · det(I + V S⁻¹ U)

Vectors and transposes go through the terms; what looks at single blocks sees those of the sum, formed then and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.lazy import lazy
from .._blocks.merge import merge
from .factored import LateBlocks, chained, rank_bound

if TYPE_CHECKING:
    from .operator import Jacobian

#: A product through so many times fewer numbers than it has rows is worth keeping apart.
LOW = 4


class Plus(LateBlocks):
    """The blocks of a sum of one that has structure and one of low rank."""

    def __init__(self, rest: Jacobian, low: Jacobian) -> None:
        self.terms = rest, low

    @lazy
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of both, added where they stand at the same places."""
        rest, low = self.terms
        return tuple(merge([*rest.blocks, *low.blocks], rest.out_shape, rest.in_shape, rest))


def plus(terms: Sequence[Jacobian]) -> Jacobian | None:
    """Return the sum of some Jacobians kept apart; None where not one of them alone is of low rank."""
    flat = [part for term in terms for part in term._terms or (term,)]
    low = [term for term in flat if is_low(term)]
    rest = [term for term in flat if not is_low(term)]
    if len(low) != 1 or not rest:
        return None
    first = rest[0]
    shapes = first.out_shape, first.in_shape
    blocks = merge([block for term in rest for block in term.blocks], *shapes, first)
    return first._new(*shapes, Plus(first._new(*shapes, tuple(blocks)), low[0]))


def is_low(jacobian: Jacobian) -> bool:
    """Return whether a Jacobian is a product through far fewer numbers than it has rows and columns."""
    return bool(jacobian.factors) and rank_bound(jacobian) * LOW <= min(jacobian._matrix_shape())


def woodbury(jacobian: Jacobian, columns: Tensor) -> Tensor:
    """The solution for right sides in columns, refined once: the terms may be worse conditioned than their sum."""
    solved = _solved(jacobian, columns)
    shape = (*jacobian.in_shape, columns.shape[1])
    error = columns - jacobian._times(solved.reshape(shape)).reshape(columns.shape)
    return solved + _solved(jacobian, error)


def _solved(jacobian: Jacobian, columns: Tensor) -> Tensor:
    rest, low = jacobian._terms
    given = (*jacobian.out_shape, columns.shape[1])
    inner, wide = _inner(jacobian)
    first = rest.solve(columns.reshape(given))
    below = chained(low.factors[1:])._times(first).reshape(inner.shape[0], -1)
    found: Tensor = first.reshape(columns.shape) - wide @ torch.linalg.solve(inner, below)
    return found


def _inner(jacobian: Jacobian) -> tuple[Tensor, Tensor]:
    """I + V S⁻¹ U and S⁻¹ U."""
    rest, low = jacobian._terms
    left = low.factors[0].to_dense()
    rank = left.numel() // max(rest._matrix_shape()[0], 1)
    wide = rest.solve(left.reshape((*rest.out_shape, rank)))
    inner = chained(low.factors[1:])._times(wide).reshape(rank, rank)
    eye = torch.eye(rank, dtype=inner.dtype, device=inner.device)
    return inner + eye, wide.reshape(-1, rank)


def slogdet(jacobian: Jacobian) -> tuple[Tensor, Tensor]:
    """Return the sign and the logarithm of the determinant."""
    inner, _ = _inner(jacobian)
    sign, logarithm = torch.linalg.slogdet(inner)
    first = jacobian._terms[0].slogdet()
    return first.sign * sign, first.logabsdet + logarithm
