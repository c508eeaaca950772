"""Parts of a Jacobian by index law: its diagonal, its rows and columns, the blocks on its diagonal."""

from __future__ import annotations

from functools import singledispatch
from math import prod
from operator import index
from typing import Any

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.block_views import joined, relabelled, tied
from .._blocks.compose import compose
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant
from .._blocks.product import product
from .._blocks.table_product import product_of_two
from .._blocks.write import written
from .factored import chained
from .forms import Form, ProductOfFactors, SumOfBlocks, repeated
from .products import times, transposed
from .to_dense import to_dense


def diagonal(form: Form) -> Tensor:
    """Return the entries J[i, i] where both ends have one shape, else those of the flattened matrix."""
    out_shape, in_shape = form.out_shape, form.in_shape
    if out_shape == in_shape:
        return diagonal_blocks(form, tuple(range(len(out_shape))))
    both, most = sorted(form.matrix_shape)
    flat = [
        block._replace(out=(joined(block.out, out_shape),), wrt=(joined(block.wrt, in_shape),))
        for block in form.blocks
    ]
    # Both ends as if they had the longer one's size: entries on the diagonal stand in the shorter one anyway.
    square = SumOfBlocks((most,), (most,), form.dtype, form.device, tuple(flat))
    return diagonal_blocks(square, (0,))[:both].clone()


def block_diagonal(form: Form) -> Tensor:
    """Return the blocks on the diagonal of the first dim.

    Raises:
        ValueError: if output and input do not begin with the same dim.
    """
    out_shape, in_shape = form.out_shape, form.in_shape
    if not (out_shape and in_shape and out_shape[0] == in_shape[0]):
        raise ValueError(
            "block_diagonal: output and input must begin with the same dim, the batch; got shapes "
            f"{out_shape} and {in_shape}"
        )
    return diagonal_blocks(form, (0,))


@singledispatch
def diagonal_blocks(form: Form, dims: tuple[int, ...]) -> Tensor:
    """Return the entries at which output and input agree along some dims.

    Their shape is that of those dims, then what is left of the output's, then of the input's.
    """
    return repeated(form, ("diagonal_blocks", dims), lambda form: _diagonal_blocks(form, dims))


def _diagonal_blocks(form: Form, dims: tuple[int, ...]) -> Tensor:
    blocks, out_shape, in_shape, _ = form.ends
    rest_out, rest_in = _rest(out_shape, dims), _rest(in_shape, dims)
    over = tuple(map(bare, map(Label, in_shape)))
    drop = Block(1.0, (), over, tuple(over[dim] for dim in rest_in))  # sums over the input's tied dims
    found = []
    for block in blocks:
        tie = tied(block, [(block.out[dim], block.wrt[dim], out_shape[dim]) for dim in dims], form.device)
        tie = tie and tie._replace(out=tuple(tie.out[dim] for dim in (*dims, *rest_out)))
        found.append(tie and compose(tie, drop, in_shape, form.device))
    shape = [out_shape[dim] for dim in (*dims, *rest_out)]
    return written(found, shape, [in_shape[dim] for dim in rest_in], form)


@diagonal_blocks.register(ProductOfFactors)
def diagonal_blocks_of_product(form: ProductOfFactors, dims: tuple[int, ...]) -> Tensor:
    """Sum over what is between the factors, D[d, o; i] = Σ_m A[d, o; m] B[m; d, i].

    The output's dims d go along as dims of what is between, and no entry off the diagonal is formed.
    """
    left, right = form.factors[0], chained(form.factors[1:])
    rest_out, rest_in = _rest(left.out_shape, dims), _rest(right.in_shape, dims)
    between = (*left.in_shape, *(left.out_shape[dim] for dim in dims))
    found = []
    for a in left.blocks:
        for b in map(relabelled, right.blocks):
            upper = a._replace(
                out=tuple(a.out[dim] for dim in (*dims, *rest_out)),
                wrt=(*a.wrt, *(a.out[dim] for dim in dims)),
            )
            lower = b._replace(
                out=(*b.out, *(b.wrt[dim] for dim in dims)), wrt=tuple(b.wrt[dim] for dim in rest_in)
            )
            found.append(product_of_two(upper, lower, between, form.device))
    shape = [left.out_shape[dim] for dim in (*dims, *rest_out)]
    return written(found, shape, [right.in_shape[dim] for dim in rest_in], form)


def _rest(shape: tuple[int, ...], dims: tuple[int, ...]) -> list[int]:
    return [dim for dim in range(len(shape)) if dim not in dims]


def select(form: Form, key: Any) -> Form:
    """Return the Jacobian of ``output[key]``; what a tuple has beyond the dims of the output chooses inputs.

    Raises:
        IndexError: if the key does not fit.
    """
    rows, columns = _split_key(key, len(form.out_shape))
    if not columns:
        return select_rows(form, rows)
    if _split_key(columns, len(form.in_shape))[1]:
        raise IndexError(
            f"index {key!r} does not fit an output of shape {form.out_shape} and an input of shape {form.in_shape}"
        )
    return transposed(select_rows(transposed(select_rows(form, rows)), columns))


@singledispatch
def select_rows(form: Form, key: Any) -> Form:
    """Return the Jacobian of ``output[key]``."""
    labels, maps = _affine_selection(key, form.out_shape) or _table_selection(
        key, form.out_shape, form.device
    )
    shape = tuple(label.size for label in labels)
    blocks: list[Block] = []
    if 0 not in shape:
        chooser = Block(1.0, (), tuple(map(bare, labels)), maps)
        blocks = product([chooser], form.blocks, (shape, form.out_shape, form.in_shape), form)
    return SumOfBlocks(shape, form.in_shape, form.dtype, form.device, tuple(blocks))


@select_rows.register(ProductOfFactors)
def select_rows_of_product(form: ProductOfFactors, key: Any) -> Form:
    """Choose rows of the output's factor."""
    return chained([select_rows(form.factors[0], key), *form.factors[1:]])


def _split_key(key: Any, dims: int) -> tuple[Any, tuple[Any, ...]]:
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


def _affine_selection(key: Any, shape: tuple[int, ...]) -> tuple[list[Label], tuple[Map, ...]] | None:
    """Return the positions that ints, slices and an ellipsis choose, as progressions; None for any other key."""
    keys = key if isinstance(key, tuple) else (key,)
    if any(type(item) not in (int, slice, type(Ellipsis)) for item in keys):
        return None
    given = len(keys) - keys.count(Ellipsis)
    if given > len(shape) or keys.count(Ellipsis) > 1:
        raise IndexError(f"index {key!r} does not fit an output of shape {shape}")
    at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    whole = (slice(None),) * (len(shape) - given)
    labels: list[Label] = []
    maps: list[Map] = []
    for item, size in zip((*keys[:at], *whole, *keys[at + 1 :]), shape, strict=True):
        if isinstance(item, int):
            if not -size <= item < size:
                raise IndexError(
                    f"index {item} is out of range for a dim of size {size}, output of shape {shape}"
                )
            maps.append(constant(item % size))
            continue
        chosen = range(size)[item]
        labels.append(Label(len(chosen)))
        maps.append(Affine(chosen.start, ((labels[-1], chosen.step),)))
    return labels, tuple(maps)


def _table_selection(
    key: Any, shape: tuple[int, ...], device: torch.device
) -> tuple[list[Label], tuple[Map, ...]]:
    """Return the positions that any key chooses, as index tensors read off a numbered output.

    A key of rows leaves the other dims whole, which need no table.
    """
    if isinstance(key, list) and key:
        key = torch.as_tensor(key, device=device)
    mask = isinstance(key, Tensor) and key.dtype in (torch.bool, torch.uint8)
    is_rows = isinstance(key, Tensor) and bool(shape) and not (mask and key.dim() != 1)
    first, whole = (shape[:1], shape[1:]) if is_rows else (shape, ())
    try:
        at = torch.arange(prod(first), device=device).view(first)[key]
    except (TypeError, IndexError) as error:
        raise IndexError(f"index {key!r} does not fit an output of shape {shape}: {error}") from error
    labels = [Label(size) for size in at.shape]
    maps: list[Map] = []
    for size in reversed(first):
        maps.append(Gather(at % max(size, 1), tuple(labels)))
        at = at // max(size, 1)
    rest = [Label(size) for size in whole]
    return labels + rest, (*reversed(maps), *map(bare, rest))


def row(form: Form, key: Any) -> Tensor:
    """Return the gradient of one entry of the output, dense, of shape ``in_shape``.

    Raises:
        TypeError: if the key is not an int or a tuple of them.
        IndexError: if it does not name one entry of the output.
    """
    try:
        keys = tuple(map(index, key)) if isinstance(key, tuple) else (index(key),)
    except TypeError as error:
        message = f"row: needs an int or a tuple of ints, got {key!r}; J[rows] takes any other key"
        raise TypeError(message) from error
    if len(keys) != len(form.out_shape):
        raise IndexError(
            f"row: needs one index for each of the {len(form.out_shape)} dims of an output of shape {form.out_shape}, "
            f"got {key!r}"
        )
    if isinstance(form, ProductOfFactors):
        first = to_dense(select_rows(form.factors[0], keys))
        return times(transposed(chained(form.factors[1:])), first)
    return to_dense(select_rows(form, keys))
