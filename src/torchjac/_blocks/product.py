"""Products of whole Jacobians: each block of one with each of the other, and the products merged."""

from __future__ import annotations

from collections.abc import Sequence

from .block import Block, TensorOptions
from .block_views import relabelled
from .coo_product import lists_pay, product_of_lists
from .cost import coordinates_pay
from .merge import dense_block, merge
from .table_product import product_of_two

#: The products of blocks that are held before they are merged: a merge costs some milliseconds,
#: and each product holds a value.
MOST_WAITING = 512


def product(
    left: Sequence[Block],
    right: Sequence[Block],
    shapes: tuple[Sequence[int], Sequence[int], Sequence[int]],
    like: TensorOptions,
) -> list[Block]:
    """Return the blocks of (∂out/∂mid) · (∂mid/∂wrt); ``shapes`` are those of out, mid and wrt."""
    out_shape, mid_shape, wrt_shape = shapes
    if lists_pay(left, right, shapes, like.device):
        listed = product_of_lists(left, right, shapes, like)
        pays = not listed or coordinates_pay(listed, (), out_shape, wrt_shape)
        return listed if pays else [dense_block(listed, out_shape, wrt_shape, like)]
    right = [relabelled(block) for block in right]
    found: list[Block] = []
    for a in left:
        for b in right:
            block = product_of_two(a, b, mid_shape, like.device)
            if block is not None:
                found.append(block)
            if len(found) > MOST_WAITING:
                found = merge(found, out_shape, wrt_shape, like)
    return merge(found, out_shape, wrt_shape, like)
