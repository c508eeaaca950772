"""Systems with a product of two factors that has far more entries than they: sparse ones that have both in them.

    (S + A B) x = b        [S  A] [x]   [b]
                           [B −I] [y] = [0]        y = B x        det [S A; B −I] = (−1)^(size of y) det (S + A B)

S is zero for a product. A sparse and a low-rank term that one function adds are such a product, through what both make
of the input; a sum of blocks is such a sum where some of them are full because each output meets a sum.
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
from .outer import outer
from .products import transposed, with_owner


class Augmented:
    """The sparse system of a product or sum, and the number of unknowns between its factors."""

    def __init__(self, form: Form) -> None:
        rest, left, right = _parts(form)
        eye = valued(identity(right.out_shape), -1.0)
        minus = SumOfBlocks(right.out_shape, right.out_shape, form.dtype, form.device, (eye,))
        self.system = bordered([[rest, left], [right, minus]])
        self.between = prod(right.out_shape)

    @property
    def told(self) -> str:
        """The way that the system is solved, in words."""
        return (
            f"solve: with both factors in one system, {' '.join(told(self.system)).removeprefix('solve: ')}"
        )


def _parts(form: Form) -> tuple[Form | None, Form, Form]:
    """Return S, A and B."""
    if isinstance(form, ProductOfFactors):
        left, right = form.factors
        return None, left, right
    assert isinstance(form, SumOfBlocks)
    found = outer(form)
    assert found is not None
    return found


def augmented(form: Form) -> tuple[Augmented, bool]:
    """Return the system that is kept with a product or sum, and whether the form is its transpose."""
    owner, is_transpose = with_owner(form)
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
