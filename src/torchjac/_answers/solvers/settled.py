"""Solutions that are none: where a matrix is singular but for rounding, what is found solves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

#: A solution is looked at where it may have lost all but two digits.
SUSPECT = 0.01

#: It is none where it leaves the first part of the right side and rounding changes it by the fourth root of what it
#: should, or where it leaves the second and rounding changes it by half.
WRONG, LEFT, CHANGED = 0.1, 0.01, 0.5


class Solves(NamedTuple):
    """The solution of a system, and of the transposed one, for a right side."""

    plain: Callable[[Tensor], Tensor]
    transposed: Callable[[Tensor], Tensor]


def probed(right: Tensor, solved: Tensor, solves: Solves) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a right side and another, each with its solution.

    By chance one may nearly be met though the matrix is singular, two hardly are.
    """
    yield right, solved
    other = probe(right)
    yield other, solves.plain(other)


def is_suspect(size: float, right: Tensor, solved: Tensor) -> bool:
    """Return whether a solution, of a matrix with entries of some size, may have lost all but two digits."""
    return size * largest(solved) * torch.finfo(solved.dtype).eps > SUSPECT * largest(right)


def unsettled(given: Tensor, left: Tensor, sizes: Tensor, solved: Tensor, solves: Solves) -> Tensor:
    """Return for each column whether its solution is none: it leaves a part of the right side, and rounding changes it.

    Rounding in rows with terms of some sizes is taken with the signs that add up most where the matrix is nearly
    singular (Hager, Condition Estimates). It changes little where rows alone differ in scale, as those of a barrier
    method do, though what is left is large beside the small ones' right sides (Skeel, Scaling for Numerical Stability
    in Gaussian Elimination).
    """
    eps = torch.finfo(solved.dtype).eps
    signs = solves.transposed(probe(sizes)).sign()
    change = torch.maximum(*[solves.plain(side).abs().amax(-2) for side in (left, eps * sizes * signs)])
    part, size, whole = left.abs().amax(-2), solved.abs().amax(-2), largest(given)
    wrong: Tensor = (part > WRONG * whole) & ~(change <= eps**0.25 * size)
    wrong |= (part > LEFT * whole) & ~(change <= CHANGED * size)
    return wrong


def probe(like: Tensor) -> Tensor:
    """Return a column for right sides like some, which none is met by by chance."""
    column = torch.arange(like.shape[-2], dtype=like.dtype, device=like.device).cos()[:, None]
    return column.expand(*like.shape[:-1], 1)


def largest(values: Tensor) -> float:
    """Return the largest absolute value; NaN where there is one."""
    if not values.numel():
        return 0.0
    low, high = values.detach().aminmax()
    return max(float(high), -float(low))
