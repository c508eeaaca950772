"""Products of Jacobians that are lists of coordinates: one sparse matrix times another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .block import Block, TensorOptions, entries, stored
from .coordinates import block_at, coordinate_block, coordinates
from .cost import lists_cost_less
from .maps import Gather
from .table_product import needs_join, product_of_two
from .tracing import inside_functorch

#: Shapes of the output, of the tensor between and of the input
Shapes: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]


def lists_pay(
    left: Sequence[Block], right: Sequence[Block], shapes: Shapes, device: torch.device, ends: bool = False
) -> bool:
    """Return whether to multiply two lists of coordinates instead of each block with each other.

    With ``ends`` tables at both ends of the product are a reason: block by block it keeps every match of them.
    Never where positions have no values to sort by: inside a functorch transform and on the meta device.
    """
    tables = [map_ for block in (*left, *right) for map_ in block.out + block.wrt if type(map_) is Gather]
    if not tables or device.type == "meta" or inside_functorch():
        return False
    joins = any(
        needs_join(*ends) for a in left for b in right for ends in zip(a.wrt, b.out, shapes[1], strict=True)
    )
    if ends and not joins:
        outer = [block.out for block in left], [block.wrt for block in right]
        joins = all(any(type(map_) is Gather for maps in end for map_ in maps) for end in outer)
    named = sum(map(entries, (*left, *right)))
    rows, middle, columns = map(prod, shapes)
    between = len(left) * (rows + middle) + len(right) * (middle + columns)
    held = sum(map(stored, (*left, *right))) + between
    return lists_cost_less(len(left) * len(right), joins, named, held)


def product_of_lists(
    left: Sequence[Block], right: Sequence[Block], shapes: Shapes, like: TensorOptions
) -> list[Block]:
    """Return the blocks of (∂out/∂mid) · (∂mid/∂wrt): one sorted list of coordinates, or none.

    PyTorch's sparse product takes time for each pair of entries that meet and memory for each entry of the
    answer (Gustavson 1978). It has no second and no forward derivative and knows two dtypes (torch 2.13); where
    that is not enough the pairs are formed and summed.
    """
    out_shape, mid_shape, wrt_shape = shapes
    a, b = (
        coordinates(left, (*out_shape, *mid_shape), like),
        coordinates(right, (*mid_shape, *wrt_shape), like),
    )
    if _is_plain(a[1]) and _is_plain(b[1]):
        rows, middle, columns = map(prod, shapes)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Sparse"
            )  # that CSR, which the product goes through, is in beta
            whole = torch.sparse.mm(_matrix(*a, rows, middle), _matrix(*b, middle, columns)).coalesce()
        row, column = whole.indices()
        return [block_at(row * columns + column, whole.values(), out_shape, wrt_shape)] if row.numel() else []
    pairs = product_of_two(
        block_at(*a, out_shape, mid_shape), block_at(*b, mid_shape, wrt_shape), mid_shape, like.device
    )
    return [] if pairs is None else [coordinate_block([pairs], out_shape, wrt_shape, like)]


def _is_plain(values: Tensor) -> bool:
    recorded = values.requires_grad or forward_ad.unpack_dual(values).tangent is not None
    return not recorded and values.dtype in (torch.float32, torch.float64)


def _matrix(at: Tensor, values: Tensor, rows: int, columns: int) -> Tensor:
    index = torch.stack([at // max(columns, 1), at % max(columns, 1)])
    return torch.sparse_coo_tensor(
        index, values, (rows, columns), device=values.device, is_coalesced=True, check_invariants=False
    )
