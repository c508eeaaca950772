"""Products straight from the blocks: with vectors, with batches of vectors, with other Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from .._blocks.block import Block, Kind
from .._blocks.block_views import swapped
from .._blocks.coo_product import lists_pay
from .._blocks.cost import coordinates_pay
from .._blocks.maps import Label, bare
from .._blocks.product import product
from .._blocks.table_product import product_of_two
from .._blocks.tracing import is_plain, is_tracing, leaves_a_trail
from .entrywise_product import Views, entrywise_product, views_of
from .to_dense import written

if TYPE_CHECKING:
    from .operator import Jacobian


def transposed(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return the blocks of the Jacobian with its ends swapped."""
    return tuple(swapped(block) for block in blocks)


def times(
    blocks: Sequence[Block],
    vector: Tensor,
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: Kind,
) -> Tensor:
    """Return the Jacobian times a tensor of shape ``in_shape`` and a number of dims that ride along."""
    count = len(in_shape)
    tail = tuple(vector.shape[count:])
    entrywise: list[tuple[Block, Views]] = []
    values = [block.value for block in blocks if isinstance(block.value, Tensor)]
    if not leaves_a_trail([vector, *values]) and not is_tracing():
        summed = []
        for block in blocks:
            same = not isinstance(block.value, Tensor) or block.value.dtype == vector.dtype
            views = views_of(block, out_shape, in_shape) if same else None
            if views is None:
                summed.append(block)
            else:
                entrywise.append((block, views))
        blocks = summed
    found: Tensor | None = None
    if blocks or not entrywise:
        dims = tuple(Label(size) for size in vector.shape)
        maps = tuple(map(bare, dims))
        right = Block(vector, dims, maps[:count], maps[count:])
        terms = [product_of_two(block, right, in_shape, like.device) for block in blocks]
        found = written(terms, out_shape, tail, like)
    if entrywise:
        size = prod(out_shape)
        onto = None if found is None else found.view([size, *tail])
        flat = entrywise_product(entrywise, vector.reshape(prod(in_shape), *tail), size, like, onto)
        found = flat.view([*out_shape, *tail])
    assert found is not None
    return found


def gram(like: Jacobian, weight: Tensor | None) -> list[Block]:
    """Return the blocks of JᵀWJ, W diagonal (the identity where it is None)."""
    blocks, out_shape, in_shape = like.blocks, like.out_shape, like.in_shape
    left = transposed(blocks)
    shapes = (in_shape, out_shape, in_shape)
    tensors = [block.value for block in blocks if isinstance(block.value, Tensor)]
    if weight is not None:
        tensors.append(weight)
    if lists_pay(left, blocks, shapes, like.device) and all(map(is_plain, tensors)):
        found = like._consolidated.gram(weight)
        if found is not None and coordinates_pay(found, (), in_shape, in_shape):
            return found
    if weight is not None:
        on = tuple(map(Label, out_shape))
        maps = tuple(map(bare, on))
        diagonal = Block(weight, on, maps, maps)
        left = tuple(product(left, [diagonal], (in_shape, out_shape, out_shape), like))
    return product(left, blocks, shapes, like)


def weighting(weight: Any, like: Jacobian) -> Jacobian:
    """Return a weight of the outputs as a Jacobian: one already, or small matrices on the diagonal of the first dim."""
    shape = like.out_shape
    if not isinstance(weight, Tensor):
        if (weight.out_shape, weight.in_shape) != (shape, shape):
            raise ValueError(
                f"gram: a weight that is a Jacobian must take the outputs, {shape}, to the outputs, got "
                f"{weight.out_shape} by {weight.in_shape}"
            )
        return weight  # type: ignore[no-any-return]
    weight = check_operand(weight, (*shape, *shape[1:]), like, "gram: weight")
    on = tuple(map(Label, weight.shape))
    maps = tuple(map(bare, on))
    block = Block(weight, on, maps[: len(shape)], (maps[0], *maps[len(shape) :]))
    return like._new(shape, shape, (block,))


def check_operand(given: Any, shape: tuple[int, ...], like: Kind, what: str, batch: bool = False) -> Tensor:
    """Return the tensor given, if its shape, dtype and device fit; ``batch`` asks for one more dim at its end."""
    needed = f"{shape} + (k,)" if batch else f"{shape}"
    if not isinstance(given, Tensor):
        also = "; use torch.from_numpy" if isinstance(given, numpy.ndarray) else ""
        raise TypeError(f"{what} must be a tensor of shape {needed}, got {type(given).__name__}{also}")
    if given.layout is not torch.strided:
        raise ValueError(
            f"{what} must be a dense tensor of shape {needed}, got layout {given.layout}; use to_dense()"
        )
    fits = tuple(given.shape[: len(shape)]) == shape and given.dim() == len(shape) + batch
    if not fits:
        many = "@" in what and given.dim() == len(shape) + 1 and tuple(given.shape[:-1]) == shape
        also = "; many vectors at once go through matmat" if many else ""
        raise ValueError(f"{what} must have shape {needed}, got {tuple(given.shape)}{also}")
    if given.dtype != like.dtype or given.device != like.device:
        raise ValueError(
            f"{what} must have the Jacobian's dtype and device, {like.dtype} on {like.device}, got "
            f"{given.dtype} on {given.device}; convert it with .to({like.dtype})"
        )
    return given
