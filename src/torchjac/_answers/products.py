"""Products straight from the form: its transpose, vectors, other Jacobians, JᵀWJ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from math import prod
from typing import Any

import numpy
import torch
from torch import Tensor

from .._blocks.block import Block, TensorOptions, diagonal_block
from .._blocks.block_views import swapped
from .._blocks.coo_product import lists_pay
from .._blocks.cost import coordinates_pay
from .._blocks.maps import Label, bare
from .._blocks.product import product
from .._blocks.table_product import product_of_two
from .._blocks.tracing import is_plain, is_tracing, leaves_a_trail
from .._blocks.write import written
from .consolidate import consolidated
from .entrywise_product import Views, entrywise_product, views_of
from .factored import chained
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks, multiplied
from .full_rows import full_rows


def composed(a: Form, b: Form) -> Form:
    """Return the product of two forms, by the chain rule."""
    if isinstance(a, ProductOfFactors) or isinstance(b, ProductOfFactors):
        return chained([a, b])
    return multiplied(a, b)


@singledispatch
def transposed(form: Form) -> Form:
    """Return the form with output and input swapped."""
    raise NotImplementedError


@transposed.register(SumOfBlocks)
def transposed_sum(form: SumOfBlocks) -> SumOfBlocks:
    """Swap the maps of each block; a transpose and its matrix share what is kept with the latter."""
    found: SumOfBlocks | None = vars(form).get("transpose_of")
    if found is None:
        blocks = tuple(map(swapped, form.blocks))
        found = SumOfBlocks(form.in_shape, form.out_shape, form.dtype, form.device, blocks)
        vars(found)["transpose_of"] = form
    return found


@transposed.register(ProductOfFactors)
def transposed_product(form: ProductOfFactors) -> ProductOfFactors:
    """Swap the factors: (A B)ᵀ = Bᵀ Aᵀ."""
    found: ProductOfFactors | None = vars(form).get("transpose_of")
    if found is None:
        found = ProductOfFactors(tuple(map(transposed, reversed(form.factors))))
        vars(found)["transpose_of"] = form
    return found


@transposed.register(LowRankUpdate)
def transposed_update(form: LowRankUpdate) -> LowRankUpdate:
    """Swap each term."""
    return LowRankUpdate(transposed_sum(form.rest), transposed_product(form.low))


@singledispatch
def times(form: Form, vectors: Tensor) -> Tensor:
    """Return the product with a tensor of shape ``in_shape`` and dims that ride along."""
    raise NotImplementedError


@times.register(SumOfBlocks)
def times_sum(form: SumOfBlocks, vectors: Tensor) -> Tensor:
    """Multiply by one matrix where there is one, else by each block."""
    count = len(form.in_shape)
    tail = tuple(vectors.shape[count:])
    owner, is_transpose = with_owner(form)
    whole = consolidated(owner).times(owner, vectors.reshape(prod(form.in_shape), *tail), is_transpose)
    if whole is not None:
        return whole.reshape((*form.out_shape, *tail))
    return _by_blocks(form.blocks, vectors, form.out_shape, form.in_shape, form)


def _by_blocks(
    blocks: Sequence[Block],
    vector: Tensor,
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
) -> Tensor:
    """Return the product by the blocks: entry by entry where none is summed, else by the law of composition."""
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


@times.register(ProductOfFactors)
def times_product(form: ProductOfFactors, vectors: Tensor) -> Tensor:
    """Multiply by each factor, the input's first."""
    for factor in reversed(form.factors):
        vectors = times(factor, vectors)
    return vectors


@times.register(LowRankUpdate)
def times_update(form: LowRankUpdate, vectors: Tensor) -> Tensor:
    """Multiply by each term."""
    return times(form.rest, vectors) + times(form.low, vectors)


def with_owner(form: Form) -> tuple[Form, bool]:
    """Return the form that keeps the matrix and its factors, and whether this one is its transpose."""
    owner: Form | None = vars(form).get("transpose_of")
    return (form, False) if owner is None else (owner, True)


@singledispatch
def gram(form: Form, weight: Tensor | None) -> Form:
    """Return JᵀWJ, W diagonal (the identity where it is None)."""
    apart = full_rows(form) if isinstance(form, SumOfBlocks) else None
    if apart is not None:
        rest, full, rows = apart
        right = full if weight is None else multiplied(_diagonal(weight[rows], form), full)
        others = gram(rest, weight)
        assert isinstance(others, SumOfBlocks)
        return LowRankUpdate(others, ProductOfFactors((transposed(full), right)))
    blocks, out_shape, in_shape, _ = form.ends
    left: Sequence[Block] = tuple(map(swapped, blocks))
    shapes = (in_shape, out_shape, in_shape)
    tensors = [block.value for block in blocks if isinstance(block.value, Tensor)]
    if weight is not None:
        tensors.append(weight)
    found = None
    if lists_pay(left, blocks, shapes, form.device, ends=True) and all(map(is_plain, tensors)):
        found = consolidated(form).gram(form, weight)
        if found is not None and not coordinates_pay(found, (), in_shape, in_shape):
            found = None
    if found is None:
        if weight is not None:
            left = product(left, [diagonal_block(weight)], (in_shape, out_shape, out_shape), form)
        found = product(left, blocks, shapes, form)
    return SumOfBlocks(in_shape, in_shape, form.dtype, form.device, tuple(found))


def _diagonal(values: Tensor, like: TensorOptions) -> SumOfBlocks:
    """Return a diagonal matrix."""
    return SumOfBlocks(values.shape, values.shape, like.dtype, like.device, (diagonal_block(values),))


@gram.register(ProductOfFactors)
def gram_of_product(form: ProductOfFactors, weight: Tensor | None) -> Form:
    """Keep all factors but the output's first, whose JᵀWJ stands between them."""
    first, *rest = form.factors
    return chained([*map(transposed, reversed(rest)), gram(first, weight), *rest])


def weighting(weight: Tensor | Form, like: Form) -> Form:
    """Return a weight of the outputs as a form: one already, or small matrices on the diagonal of the first dim."""
    shape = like.out_shape
    if not isinstance(weight, Tensor):
        if (weight.out_shape, weight.in_shape) != (shape, shape):
            raise ValueError(
                f"gram: a weight that is a Jacobian must take the outputs, {shape}, to the outputs, got "
                f"{weight.out_shape} by {weight.in_shape}"
            )
        return weight
    weight = check_operand(weight, (*shape, *shape[1:]), like, "gram: weight")
    on = tuple(map(Label, weight.shape))
    maps = tuple(map(bare, on))
    block = Block(weight, on, maps[: len(shape)], (maps[0], *maps[len(shape) :]))
    return SumOfBlocks(shape, shape, like.dtype, like.device, (block,))


def no_tensor(given: Any) -> str:
    """Return what was given where a tensor is needed, and what makes one of it."""
    make = {numpy.ndarray: "; use torch.from_numpy", list: "; use torch.tensor", tuple: "; use torch.tensor"}
    return type(given).__name__ + make.get(type(given), "")


def check_operand(
    given: Any, shape: tuple[int, ...], like: TensorOptions, what: str, batch: bool = False
) -> Tensor:
    """Return the tensor given, if its shape, dtype and device fit; ``batch`` asks for one more dim at its end."""
    needed = f"{shape} + (k,)" if batch else f"{shape}"
    if not isinstance(given, Tensor):
        raise TypeError(f"{what} must be a tensor of shape {needed}, got {no_tensor(given)}")
    if given.layout is not torch.strided:
        raise ValueError(
            f"{what} must be a dense tensor of shape {needed}, got layout {given.layout}; use to_dense()"
        )
    fits = tuple(given.shape[: len(shape)]) == shape and given.dim() == len(shape) + batch
    if not fits:
        many = "@" in what and shape in (tuple(given.shape[:-1]), tuple(given.shape[1:]))
        matmat = "matmat" if what.startswith("J") else "J.mT.matmat"
        also = f"; many vectors at once go through {matmat}, side by side in the last dim" if many else ""
        raise ValueError(f"{what} must have shape {needed}, got {tuple(given.shape)}{also}")
    if given.dtype != like.dtype or given.device != like.device:
        raise ValueError(
            f"{what} must have the Jacobian's dtype and device, {like.dtype} on {like.device}, got "
            f"{given.dtype} on {given.device}; convert it with .to({like.dtype})"
        )
    return given
