"""Systems with a product of two factors that has far more entries than they: sparse ones that have both in them.

    A B x = b        [0  A] [x]   [b]
                     [B −I] [y] = [0]        y = B x        det [0 A; B −I] = (−1)^(size of y) det (A B)

A sparse and a low-rank term that one function adds are such a product, through what both make of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .._blocks.block import identity, valued
from .bordered import bordered
from .forms import Form, ProductOfFactors, SumOfBlocks, kept, told
from .products import transposed, with_owner


class Augmented:
    """The sparse system of a product, and the number of unknowns between its factors."""

    def __init__(self, form: ProductOfFactors) -> None:
        left, right = form.factors
        eye = valued(identity(right.out_shape), -1.0)
        minus = SumOfBlocks(right.out_shape, right.out_shape, form.dtype, form.device, (eye,))
        self.system = bordered([[None, left], [right, minus]])
        self.between = prod(right.out_shape)

    @property
    def told(self) -> str:
        """The way that the system is solved, in words."""
        return (
            f"solve: with both factors in one system, {' '.join(told(self.system)).removeprefix('solve: ')}"
        )


def augmented(form: Form) -> tuple[Augmented, bool]:
    """Return the system that is kept with a product, and whether the form is its transpose."""
    owner, is_transpose = with_owner(form)
    assert isinstance(owner, ProductOfFactors)
    return kept(owner, "augmented", lambda: Augmented(owner)), is_transpose


def solution(form: Form, columns: Tensor, solve: Callable[[Form, Tensor], Tensor]) -> Tensor:
    """Return the solutions for right sides in columns; a product and its transpose share what is factorised."""
    found, is_transpose = augmented(form)
    system = transposed(found.system) if is_transpose else found.system
    zeros = columns.new_zeros(found.between, columns.shape[1])
    try:
        return solve(system, torch.cat([columns, zeros]))[: columns.shape[0]]
    except LinAlgError as error:
        raise LinAlgError("solve: the Jacobian is singular (a product of two factors)") from error
