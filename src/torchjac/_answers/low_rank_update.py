"""A sum that is better kept apart: a structured Jacobian plus one of low rank, solved by Woodbury's formula.

(S + U V)⁻¹ = S⁻¹ − S⁻¹ U (I + V S⁻¹ U)⁻¹ V S⁻¹        det(S + U V) = det S · det(I + V S⁻¹ U)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from .._blocks.merge import merge
from .factored import chained, rank_bound
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks
from .products import times
from .to_dense import to_dense

#: The factor by which the numbers that a product goes through are fewer than its rows where it is kept apart.
LOW = 4

#: Solves a system with a form.
Solve: TypeAlias = Callable[[Form, Tensor], Tensor]


def plus(forms: Sequence[Form]) -> LowRankUpdate | None:
    """Return the sum of some forms kept apart; None where not one of them alone is of low rank."""
    flat: list[Form] = []
    for form in forms:
        flat += [form.rest, form.low] if isinstance(form, LowRankUpdate) else [form]
    low = [term for term in flat if isinstance(term, ProductOfFactors) and is_low(term)]
    rest = [term for term in flat if term not in low]
    if len(low) != 1 or not rest:
        return None
    first = rest[0]
    ends = first.out_shape, first.in_shape, first
    blocks = merge([block for term in rest for block in term.blocks], *ends)
    structured = SumOfBlocks(first.out_shape, first.in_shape, first.dtype, first.device, tuple(blocks))
    return LowRankUpdate(structured, low[0])


def is_low(form: ProductOfFactors) -> bool:
    """Return whether a product goes through far fewer numbers than it has rows and columns."""
    return rank_bound(form) * LOW <= min(form.matrix_shape)


def woodbury(form: LowRankUpdate, columns: Tensor, solve: Solve) -> Tensor:
    """Return the solution for right sides in columns, refined once: a term may be worse conditioned than the sum."""
    solved = _solved(form, columns, solve)
    shape = (*form.in_shape, columns.shape[1])
    error = columns - times(form, solved.reshape(shape)).reshape(columns.shape)
    return solved + _solved(form, error, solve)


def _solved(form: LowRankUpdate, columns: Tensor, solve: Solve) -> Tensor:
    inner, wide = _inner(form, solve)
    first = solve(form.rest, columns.reshape((*form.out_shape, columns.shape[1])))
    below = times(_below(form), first).reshape(inner.shape[0], -1)
    found: Tensor = first.reshape(columns.shape) - wide @ torch.linalg.solve(inner, below)
    return found


def _inner(form: LowRankUpdate, solve: Solve) -> tuple[Tensor, Tensor]:
    """Return I + V S⁻¹ U and S⁻¹ U."""
    left = to_dense(form.low.factors[0])
    rank = left.numel() // max(prod(form.out_shape), 1)
    wide = solve(form.rest, left.reshape((*form.out_shape, rank)))
    inner = times(_below(form), wide).reshape(rank, rank)
    eye = torch.eye(rank, dtype=inner.dtype, device=inner.device)
    return inner + eye, wide.reshape(-1, rank)


def _below(form: LowRankUpdate) -> Form:
    """Return V, the product of all factors but the output's."""
    return chained(form.low.factors[1:])


def inner_slogdet(form: LowRankUpdate, solve: Solve) -> tuple[Tensor, Tensor]:
    """Return the sign and the logarithm of det(I + V S⁻¹ U)."""
    sign, logarithm = torch.linalg.slogdet(_inner(form, solve)[0])
    return sign, logarithm
