"""Rows and columns of a Jacobian scaled or chosen: products with diagonal blocks, and keys for its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Label, bare
from .._blocks.product import product
from . import factored
from .products import check_operand

if TYPE_CHECKING:
    from .operator import Jacobian


def diagonal_block(values: Tensor) -> Block:
    """Return the diagonal matrix of some values, at the places they have in a tensor."""
    on = tuple(map(Label, values.shape))
    maps = tuple(map(bare, on))
    return Block(values, on, maps, maps)


def scaled_rows(jacobian: Jacobian, by: Tensor, what: str) -> Jacobian:
    """Return each row times the number of its output; of a product, the first factor is scaled."""
    if jacobian.factors:
        first, *rest = jacobian.factors
        return factored.chained([scaled_rows(first, by, what), *rest])
    by = check_operand(by, jacobian.out_shape, jacobian, what)
    shapes = (jacobian.out_shape, jacobian.out_shape, jacobian.in_shape)
    found = product([diagonal_block(by)], jacobian.blocks, shapes, jacobian)
    return jacobian._new(jacobian.out_shape, jacobian.in_shape, tuple(found))


def scaled_columns(jacobian: Jacobian, by: Tensor, what: str) -> Jacobian:
    """Return each column times the number of its input; of a product, the last factor is scaled."""
    if jacobian.factors:
        *rest, last = jacobian.factors
        return factored.chained([*rest, scaled_columns(last, by, what)])
    by = check_operand(by, jacobian.in_shape, jacobian, what)
    shapes = (jacobian.out_shape, jacobian.in_shape, jacobian.in_shape)
    found = product(jacobian.blocks, [diagonal_block(by)], shapes, jacobian)
    return jacobian._new(jacobian.out_shape, jacobian.in_shape, tuple(found))


def split_key(key: Any, dims: int) -> tuple[Any, tuple[Any, ...]]:
    """Return a key for the output, and one for the input: what a tuple has beyond the output's dims."""
    if not isinstance(key, tuple) or any(item is Ellipsis or item is None for item in key):
        return key, ()
    taken = 0
    for at, item in enumerate(key):
        if taken >= dims:
            return key[:at], key[at:]
        is_mask = isinstance(item, Tensor) and not item.dtype.is_floating_point and item.dtype.itemsize == 1
        taken += item.dim() if is_mask else 1
    return key, ()
