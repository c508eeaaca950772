"""Sums and multiples of Jacobians: I − hJ of an implicit step, JᵀJ + λD of a damped one, scaled rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from math import copysign, inf
from numbers import Real
from typing import Any

from torch import Tensor

from .._blocks.block import Block, TensorOptions, diagonal_block, fitted, identity, valued
from .._blocks.merge import merge
from .._blocks.product import product
from .factored import chained
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks
from .low_rank_update import plus
from .products import check_operand, no_tensor


def check_number(given: Any, like: TensorOptions, what: str) -> Tensor | float:
    """Return the number given, as a float or a 0-dim tensor of the Jacobian's dtype on its device."""
    if not isinstance(given, Tensor):
        if isinstance(given, bool) or not isinstance(given, Real):
            raise TypeError(f"{what} must be a number or a tensor, got {no_tensor(given)}")
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


def added(first: Form, second: Form) -> Form:
    """Return the sum entry by entry: blocks that stand at the same places are added, others stay side by side.

    One of low rank is kept apart.
    """
    apart = plus([first, second])
    if apart is not None:
        return apart
    blocks = [fitted(block, first.dtype, first.device) for block in (*first.blocks, *second.blocks)]
    merged = tuple(merge(blocks, first.out_shape, first.in_shape, first))
    return SumOfBlocks(first.out_shape, first.in_shape, first.dtype, first.device, merged)


def add_diagonal(form: Form, values: Any) -> Form:
    """Return the sum with a diagonal matrix, of one number or of one for each entry."""
    if form.out_shape != form.in_shape:
        raise ValueError(
            "add_diagonal: output and input must have the same shape, got "
            f"{form.out_shape} and {form.in_shape}"
        )
    if isinstance(values, Tensor) and values.dim():
        block = diagonal_block(check_operand(values, form.in_shape, form, "add_diagonal: values"))
    else:
        block = valued(identity(form.in_shape), check_number(values, form, "add_diagonal: values"))
    blocks = (fitted(block, form.dtype, form.device),)
    return added(form, SumOfBlocks(form.out_shape, form.in_shape, form.dtype, form.device, blocks))


@singledispatch
def mapped(form: Form, change: Callable[[Block], Block], like: TensorOptions) -> Form:
    """Return the form with each of its blocks changed, in another dtype and on another device."""
    raise NotImplementedError


@mapped.register(SumOfBlocks)
def mapped_sum(form: SumOfBlocks, change: Callable[[Block], Block], like: TensorOptions) -> SumOfBlocks:
    """Change the blocks."""
    return replace(form, dtype=like.dtype, device=like.device, blocks=tuple(map(change, form.blocks)))


@mapped.register(ProductOfFactors)
def mapped_product(form: ProductOfFactors, change: Callable[[Block], Block], like: TensorOptions) -> Form:
    """Change the blocks of each factor."""
    return chained([mapped(factor, change, like) for factor in form.factors])


@mapped.register(LowRankUpdate)
def mapped_update(form: LowRankUpdate, change: Callable[[Block], Block], like: TensorOptions) -> Form:
    """Change the blocks of each term."""
    return added(mapped(form.rest, change, like), mapped(form.low, change, like))


@singledispatch
def scaled(form: Form, by: Tensor | float) -> Form:
    """Return every entry times a number."""
    return mapped(form, lambda block: valued(block, block.value * by), form)


@scaled.register(ProductOfFactors)
def scaled_product(form: ProductOfFactors, by: Tensor | float) -> Form:
    """Scale the factor that holds least."""
    factors = list(form.factors)
    at = min(range(len(factors)), key=lambda n: factors[n].stored)
    factors[at] = scaled(factors[at], by)
    return chained(factors)


@scaled.register(LowRankUpdate)
def scaled_update(form: LowRankUpdate, by: Tensor | float) -> Form:
    """Scale each term."""
    return added(scaled(form.rest, by), scaled(form.low, by))


@singledispatch
def scaled_rows(form: Form, by: Tensor, what: str) -> Form:
    """Return each row times the number of its output."""
    by = check_operand(by, form.out_shape, form, what)
    shapes = (form.out_shape, form.out_shape, form.in_shape)
    found = product([diagonal_block(by)], form.blocks, shapes, form)
    return SumOfBlocks(form.out_shape, form.in_shape, form.dtype, form.device, tuple(found))


@scaled_rows.register(ProductOfFactors)
def scaled_rows_of_product(form: ProductOfFactors, by: Tensor, what: str) -> Form:
    """Scale the rows of the output's factor."""
    first, *rest = form.factors
    return chained([scaled_rows(first, by, what), *rest])


@singledispatch
def scaled_columns(form: Form, by: Tensor, what: str) -> Form:
    """Return each column times the number of its input."""
    by = check_operand(by, form.in_shape, form, what)
    shapes = (form.out_shape, form.in_shape, form.in_shape)
    found = product(form.blocks, [diagonal_block(by)], shapes, form)
    return SumOfBlocks(form.out_shape, form.in_shape, form.dtype, form.device, tuple(found))


@scaled_columns.register(ProductOfFactors)
def scaled_columns_of_product(form: ProductOfFactors, by: Tensor, what: str) -> Form:
    """Scale the columns of the input's factor."""
    *rest, last = form.factors
    return chained([*rest, scaled_columns(last, by, what)])
