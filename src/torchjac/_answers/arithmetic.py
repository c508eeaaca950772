"""Sums and multiples of Jacobians, as blocks again: I − hJ of an implicit step, JᵀJ + λD of a damped one."""

from __future__ import annotations

from math import copysign, inf
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._blocks.block import Block, fitted, identity, labels, valued
from .._blocks.merge import merge
from . import factored
from .low_rank_update import plus
from .products import check_operand

if TYPE_CHECKING:
    from .operator import Jacobian


def check_number(given: Any, like: Jacobian, what: str) -> Tensor | float:
    """Return the number given, as a float or a 0-dim tensor of the Jacobian's dtype on its device."""
    if not isinstance(given, Tensor):
        if isinstance(given, bool) or not isinstance(given, Real):
            raise TypeError(f"{what} must be a number or a tensor, got {type(given).__name__}")
        return float(given)
    if given.dim() or given.is_complex() or given.device != like.device:
        raise ValueError(
            f"{what} must be a number or a real 0-dim tensor on {like.device}, got shape {tuple(given.shape)} in "
            f"{given.dtype} on {given.device}"
        )
    return given.to(like.dtype)


def inverse(number: Tensor | float) -> Tensor | float:
    """Return one over a number, of zero infinite as for tensors."""
    if isinstance(number, Tensor):
        return 1 / number
    return 1 / number if number else copysign(inf, number)


def scaled(jacobian: Jacobian, by: Tensor | float) -> Jacobian:
    """Return every entry times a number; of a product, the factor that holds least is multiplied."""
    if jacobian.factors:
        factors = list(jacobian.factors)
        at = min(range(len(factors)), key=lambda n: factors[n].stored)
        factors[at] = scaled(factors[at], by)
        return factored.chained(factors)
    if jacobian._terms:
        rest, low = (scaled(term, by) for term in jacobian._terms)
        return added(rest, low)
    return jacobian._new(
        jacobian.out_shape,
        jacobian.in_shape,
        tuple([valued(block, block.value * by) for block in jacobian.blocks]),
    )


def added(first: Jacobian, second: Jacobian) -> Jacobian:
    """Return the sum entry by entry: blocks that stand at the same places are added, others stay side by side.

    One of low rank is kept apart.
    """
    return plus([first, second]) or _summed(first, [*first.blocks, *second.blocks])


def add_diagonal(jacobian: Jacobian, values: Any) -> Jacobian:
    """Return the sum with a diagonal matrix, of one number or of one for each entry."""
    if jacobian.out_shape != jacobian.in_shape:
        raise ValueError(
            "add_diagonal: output and input must have the same shape, got "
            f"{jacobian.out_shape} and {jacobian.in_shape}"
        )
    block = identity(jacobian.in_shape)
    if isinstance(values, Tensor) and values.dim():
        values = check_operand(values, jacobian.in_shape, jacobian, "add_diagonal: values")
        diagonal = Block(values, labels(block), block.out, block.wrt)
    else:
        diagonal = valued(block, check_number(values, jacobian, "add_diagonal: values"))
    shapes = jacobian.out_shape, jacobian.in_shape
    return added(jacobian, jacobian._new(*shapes, (fitted(diagonal, jacobian.dtype, jacobian.device),)))


def _summed(like: Jacobian, blocks: list[Block]) -> Jacobian:
    found = merge(
        [fitted(block, like.dtype, like.device) for block in blocks], like.out_shape, like.in_shape, like
    )
    return like._new(like.out_shape, like.in_shape, tuple(found))
