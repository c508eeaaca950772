"""Parts of a Jacobian by index law: its diagonal, its rows, the blocks on its diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any

import torch
from torch import Tensor

from .._blocks.block import Block, Kind
from .._blocks.block_views import joined, tied
from .._blocks.compose import compose
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant
from .._blocks.product import product
from .to_dense import written


def diagonal(
    blocks: Sequence[Block], out_shape: tuple[int, ...], in_shape: tuple[int, ...], like: Kind
) -> Tensor:
    """Return the entries J[i, i] where both ends have one shape, else those of the flattened matrix."""
    if out_shape == in_shape:
        return diagonal_blocks(blocks, tuple(range(len(out_shape))), out_shape, in_shape, like)
    rows, columns = prod(out_shape), prod(in_shape)
    flat = [
        block._replace(out=(joined(block.out, out_shape),), wrt=(joined(block.wrt, in_shape),))
        for block in blocks
    ]
    both, most = min(rows, columns), max(rows, columns)
    # Both ends as if they had the longer one's size: entries on the diagonal stand in the shorter one anyway.
    return diagonal_blocks(flat, (0,), (most,), (most,), like)[:both].clone()


def diagonal_blocks(
    blocks: Sequence[Block],
    dims: tuple[int, ...],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: Kind,
) -> Tensor:
    """Return the entries at which output and input agree along some dims.

    Their shape is that of those dims, then what is left of the output's, then of the input's.
    """
    rest_out = [dim for dim in range(len(out_shape)) if dim not in dims]
    rest_in = [dim for dim in range(len(in_shape)) if dim not in dims]
    over = tuple(map(bare, map(Label, in_shape)))
    drop = Block(1.0, (), over, tuple(over[dim] for dim in rest_in))  # sums over the input's tied dims
    found = []
    for block in blocks:
        tie = tied(block, [(block.out[dim], block.wrt[dim], out_shape[dim]) for dim in dims], like.device)
        tie = tie and tie._replace(out=tuple(tie.out[dim] for dim in (*dims, *rest_out)))
        found.append(tie and compose(tie, drop, in_shape, like.device))
    shape = [out_shape[dim] for dim in (*dims, *rest_out)]
    return written(found, shape, [in_shape[dim] for dim in rest_in], like)


def select(
    blocks: Sequence[Block], key: Any, out_shape: tuple[int, ...], in_shape: tuple[int, ...], like: Kind
) -> tuple[tuple[int, ...], list[Block]]:
    """Return the shape of ``output[key]`` and the blocks of its Jacobian.

    Raises:
        IndexError: if the key does not fit the output.
    """
    taken = _affine_selection(key, out_shape) or _table_selection(key, out_shape, like.device)
    labels, maps = taken
    chooser = Block(1.0, (), tuple(map(bare, labels)), maps)
    shape = tuple(label.size for label in labels)
    if 0 in shape:
        return shape, []
    return shape, product([chooser], blocks, (shape, out_shape, in_shape), like)


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


def row(
    blocks: Sequence[Block], key: Any, out_shape: tuple[int, ...], in_shape: tuple[int, ...], like: Kind
) -> Tensor:
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
    if len(keys) != len(out_shape):
        raise IndexError(
            f"row: needs one index for each of the {len(out_shape)} dims of an output of shape {out_shape}, "
            f"got {key!r}"
        )
    shape, chosen = select(blocks, keys, out_shape, in_shape, like)
    return written(chosen, shape, in_shape, like)
