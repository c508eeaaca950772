"""Multiplying two values over labels: aligned entry by entry, or summed over the labels that end there."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .entrywise import times
from .maps import Label

#: How a value is permuted; None for not at all
Dims: TypeAlias = tuple[int, ...] | None

#: How a value is permuted and then reshaped to broadcast over the labels of a product; None for what it is already
BroughtDims: TypeAlias = tuple[Dims, tuple[int, ...] | None]


class Joint(NamedTuple):
    """A plan to multiply two values into one over the labels ``on``.

    Where labels are summed: by a ``matrix`` product of what the two are permuted to, in ``turned`` order or not; of
    more dims over the ``dims`` of both; where labels of both also stay, in ``batches`` of matrices; where one also has
    labels of its own that go, by an ``equation`` of einsum; where one value alone has labels, by summing its ``dims``.
    Otherwise each is brought in the order of the product; an outer one makes many numbers of few, which are then copied
    so that the many lie in that order too.
    """

    on: tuple[Label, ...]
    left: BroughtDims = (None, None)
    right: BroughtDims = (None, None)
    outer: bool = False
    dims: tuple[int, ...] = ()
    other_dims: tuple[int, ...] = ()
    turned: bool = False
    equation: str | None = None
    matrix: tuple[Dims, Dims] | None = None
    batches: tuple[BroughtDims, BroughtDims, tuple[int, ...]] | None = None


#: The size of a sum from which on a product is worth bringing in the order in which both factors lie.
WORTH_TURNING = 16


def joint(
    on_left: tuple[Label, ...],
    on_right: tuple[Label, ...],
    gone: Container[Label],
    order: Iterable[Label] = (),
) -> Joint:
    """Work out how two values are multiplied and summed over the labels ``gone``.

    ``order`` is that in which the labels of the product stand in the dense tensor.
    """
    both = tuple(dict.fromkeys(on_left + on_right))
    on = tuple([label for label in both if label not in gone])
    if len(on) == len(both):
        return _aligned(on_left, on_right, on, order)
    if not on_left or not on_right:
        return Joint(on, dims=tuple([dim for dim, label in enumerate(both) if label in gone]))
    summed = [label for label in both if label in gone]
    # In the order of the two as they lie in memory: where a product transposes both, it takes a third longer.
    turned = on_left[0] in gone and on_right[-1] in gone and prod(x.size for x in summed) >= WORTH_TURNING
    first, second = (on_right, on_left) if turned else (on_left, on_right)
    if matrix := _matrices(first, second, summed):
        return Joint(matrix[0], turned=turned, matrix=matrix[1:])
    if factor := _matrix_of_many(on_left, on_right, summed):
        return factor
    if set(on_left) & set(on_right) == set(summed):  # no label of both stays, and none of one alone goes
        on = tuple([label for label in first + second if label not in gone])
        dims, others = (tuple([side.index(label) for label in summed]) for side in (on_left, on_right))
        return Joint(on, dims=dims, other_dims=others, turned=turned)
    if set(summed) <= set(on_left) & set(on_right):
        return _batches(on_left, on_right, summed)
    number = {label: k for k, label in enumerate(both)}
    return Joint(
        on, equation=_equation(*(tuple([number[x] for x in side]) for side in (on_left, on_right, on)))
    )


def _matrices(
    first: tuple[Label, ...], second: tuple[Label, ...], summed: Sequence[Label]
) -> tuple[tuple[Label, ...], Dims, Dims] | None:
    """Return the labels of a product over one label by `torch.matmul`, and how the two values are permuted for that.

    None where it would have to reshape them: labels of both come first in both, and then one of each alone, where it
    has one if none stay; the first value may have more of its own if none stay and it is as it should be.
    """
    if len(summed) != 1 or summed[0] not in first or summed[0] not in second:
        return None
    (gone,) = summed
    stay = tuple([label for label in first if label in second and label != gone])
    rows = tuple([label for label in first if label not in second])
    columns = tuple([label for label in second if label not in first])
    if len(columns) > 1 or (stay and not (len(rows) == len(columns) == 1)):
        return None
    if len(rows) > 1 and first[-1] != gone:
        return None
    return (
        stay + rows + columns,
        _permuted(first, (*stay, *rows, gone)),
        _permuted(second, (*stay, gone, *columns)),
    )


def _matrix_of_many(
    left: tuple[Label, ...], right: tuple[Label, ...], summed: Sequence[Label]
) -> Joint | None:
    """Return the plan of a product of one matrix with many, the last two dims of a value as it lies; else None."""
    for turned, one, many in ((False, left, right), (True, right, left)):
        if (
            len(summed) == 1
            and len(one) == 2
            and len(many) > 2
            and many[-2] == summed[0]
            and summed[0] in one
        ):
            (row,) = [label for label in one if label != summed[0]]
            if row not in many:
                on = (*many[:-2], row, many[-1])
                return Joint(on, turned=turned, matrix=(_permuted(one, (row, summed[0])), None))
    return None


def _batches(left: tuple[Label, ...], right: tuple[Label, ...], gone: Sequence[Label]) -> Joint:
    """Return the plan of a product of matrices for each value of the labels of both that stay."""
    stay = [label for label in left if label in right and label not in gone]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    on = (*stay, *rows, *columns)

    def brought(side: tuple[Label, ...], *groups: Sequence[Label]) -> BroughtDims:
        order = tuple([label for group in groups for label in group])
        return _permuted(side, order), tuple([prod(label.size for label in group) for group in groups])

    sides = brought(left, stay, rows, gone), brought(right, stay, gone, columns)
    return Joint(on, batches=(*sides, tuple([label.size for label in on])))


def _permuted(side: tuple[Label, ...], on: tuple[Label, ...]) -> Dims:
    return None if side == on else tuple([side.index(label) for label in on])


def _aligned(
    on_left: tuple[Label, ...], on_right: tuple[Label, ...], on: tuple[Label, ...], order: Iterable[Label]
) -> Joint:
    """In the order of the left value, which is the larger one as a rule.

    In an outer product both are brought in the order given: what makes many numbers of few decides how they lie.
    """
    if not on_left or not on_right or on_left == on_right:
        return Joint(on)
    outer = len(on) > max(len(on_left), len(on_right))
    if outer:
        place = {label: at for at, label in enumerate(order)}
        on = tuple(sorted(on, key=lambda label: place.get(label, 0)))
    return Joint(on, _brought(on_left, on), _brought(on_right, on), outer)


def _brought(side: tuple[Label, ...], on: tuple[Label, ...]) -> BroughtDims:
    order = tuple(sorted(range(len(side)), key=lambda dim: on.index(side[dim])))
    present = set(side)
    shape = None if len(side) == len(on) else tuple([label.size if label in present else 1 for label in on])
    return (None if order == tuple(range(len(side))) else order), shape


def multiply(left: Tensor | float, right: Tensor | float, how: Joint) -> Tensor | float:
    """Return the product of two values, as worked out before."""
    if how.matrix or how.equation or how.other_dims or how.batches:
        a: Tensor = left  # type: ignore[assignment]  # a number has no labels to sum
        b: Tensor = right  # type: ignore[assignment]
        if a.dtype != b.dtype:
            dtype = torch.promote_types(a.dtype, b.dtype)
            a, b = a.to(dtype), b.to(dtype)
        if how.equation is not None:
            return torch.einsum(how.equation, a, b)
        if how.batches is not None:
            first, second, shape = how.batches
            products: Tensor = torch.bmm(_bring(a, first, False), _bring(b, second, False))  # type: ignore[arg-type]
            return products.view(shape)
        if how.turned:
            a, b = b, a
        if how.matrix is not None:
            left_order, right_order = how.matrix
            a = a if left_order is None else a.permute(left_order)
            b = b if right_order is None else b.permute(right_order)
            # Of a window PyTorch would make a batch, with a copy of the matrix for each entry of it.
            return torch.matmul(a.contiguous() if a.dim() > 2 == b.dim() else a, b)
        dims = (how.other_dims, how.dims) if how.turned else (how.dims, how.other_dims)
        product: Tensor = torch.tensordot(a, b, dims)
        return product
    if how.dims:
        many, one = (left, right) if isinstance(left, Tensor) and left.dim() else (right, left)
        total = many.sum(how.dims)  # type: ignore[union-attr]  # the one with labels
        return total if type(one) is float and one == 1.0 else total * one
    if type(left) is float and left == 1.0:
        return right
    if type(right) is float and right == 1.0:
        return left
    return times(_bring(left, how.left, how.outer), _bring(right, how.right, how.outer))


def _bring(value: Tensor | float, how: BroughtDims, outer: bool) -> Tensor | float:
    order, shape = how
    tensor: Tensor = value  # type: ignore[assignment]  # a number is returned as it is
    if order is not None:
        tensor = tensor.permute(order)
        if outer:
            tensor = tensor.contiguous()
    return tensor if shape is None else tensor.reshape(shape)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(maxsize=4096)
def _equation(left: tuple[int, ...], right: tuple[int, ...], on: tuple[int, ...]) -> str:
    first, second, product = ("".join([_LETTERS[dim] for dim in dims]) for dims in (left, right, on))
    return f"{first},{second}->{product}"
