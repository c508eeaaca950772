"""Multiplying two values over labels: aligned entry by entry, or summed over the labels that end there."""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

from .maps import Label, align

#: Reshape a value so that it broadcasts over the labels of the product; None where it does as it is
Shape = tuple[int, ...] | None


class Joint(NamedTuple):
    """How two values make one over the labels ``on``.

    Either by an ``equation`` of einsum; or aligned, by permuting and reshaping each; or, where one value alone
    has labels, by summing the ``dims`` of that.
    """

    on: tuple[Label, ...]
    order: tuple[int, ...] | None = None
    left: Shape = None
    right: Shape = None
    dims: tuple[int, ...] = ()
    equation: str | None = None


def joint(on_left: tuple[Label, ...], on_right: tuple[Label, ...], gone: Container[Label]) -> Joint:
    """Work out how two values are multiplied and summed over the labels ``gone``."""
    both = tuple(dict.fromkeys(on_left + on_right))
    on = tuple([label for label in both if label not in gone])
    if len(on) == len(both):
        return _aligned(on_left, on_right, on)
    if not on_left or not on_right:
        return Joint(on, dims=tuple([dim for dim, label in enumerate(both) if label in gone]))
    if on_left[0] in gone and on_right[-1] in gone:
        # The matrix product of the two as they lie in memory; the other order transposes both, a third slower.
        on = tuple([label for label in dict.fromkeys(on_right + on_left) if label not in gone])
    number = {label: k for k, label in enumerate(both)}
    return Joint(
        on, equation=_equation(*(tuple([number[x] for x in side]) for side in (on_left, on_right, on)))
    )


def _aligned(on_left: tuple[Label, ...], on_right: tuple[Label, ...], on: tuple[Label, ...]) -> Joint:
    """The left value's labels come first in the product; the right one's are brought in its order."""
    if not on_left or not on_right or on_left == on_right:
        return Joint(on)
    order = sorted(range(len(on_right)), key=lambda dim: on.index(on_right[dim]))
    shapes: list[Shape] = []
    for side in (on_left, on_right):
        present = set(side)
        whole = len(side) == len(on)
        shapes.append(None if whole else tuple([label.size if label in present else 1 for label in on]))
    return Joint(on, None if order == sorted(order) else tuple(order), *shapes)


def multiply(left: Tensor | float, right: Tensor | float, how: Joint) -> Tensor | float:
    """The product of two values, as worked out before."""
    if how.equation is not None:
        if left.dtype != right.dtype:
            dtype = torch.promote_types(left.dtype, right.dtype)
            left, right = left.to(dtype), right.to(dtype)
        return torch.einsum(how.equation, left, right)
    if how.dims:
        many, one = (left, right) if isinstance(left, Tensor) and left.dim() else (right, left)
        many = many.sum(how.dims)
        return many if type(one) is float and one == 1.0 else many * one
    if type(left) is float and left == 1.0:
        return right
    if type(right) is float and right == 1.0:
        return left
    if how.order is not None:
        right = right.permute(how.order)
    if how.left is not None:
        left = left.reshape(how.left)
    if how.right is not None:
        right = right.reshape(how.right)
    return left * right


def select(
    left: Tensor | float, on_left: tuple[Label, ...], right: Tensor | float, on_right: tuple[Label, ...]
) -> tuple[Tensor | float, tuple[Label, ...]] | None:
    """The product that is zero wherever the right value is; None where plain multiplication does the same."""
    if not isinstance(right, Tensor) or (not isinstance(left, Tensor) and isfinite(left)):
        return None
    over = tuple(dict.fromkeys(on_left + on_right))
    right = align(right, on_right, over)
    left = align(left, on_left, over) if isinstance(left, Tensor) else left
    return torch.where(right == 0, 0, left * right), over


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(maxsize=4096)
def _equation(left: tuple[int, ...], right: tuple[int, ...], on: tuple[int, ...]) -> str:
    spell = lambda dims: "".join(_LETTERS[dim] for dim in dims)  # noqa: E731
    return f"{spell(left)},{spell(right)}->{spell(on)}"
