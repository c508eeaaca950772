"""Products of vectors with blocks each of whose entries meets one of the vector and one of the product: no sum.

Such a product is one pass over memory: both are read through strided views, and what is multiplied is added where it
belongs without being written out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .._blocks.block import Block, TensorOptions, Zeroed, labels, of_maps
from .._blocks.dense_views import is_injective, strides
from .._blocks.maps import Label, Map, align
from .._blocks.zeros import zeros


class Views(NamedTuple):
    """Where the entries of a block stand in the flattened product and in the flattened vector.

    Attributes:
        over: the labels of the block, and so the dims of both views.
        into: the strides of the product's view, and where it begins.
        of: those of the vector's.
    """

    over: tuple[Label, ...]
    into: tuple[list[int], int]
    of: tuple[list[int], int]


def views_of(block: Block, out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Views | None:
    """Return the views of a block; None where entries are summed, a map is a table, or zeros drop what they meet."""
    if type(block) is Zeroed and block.drops:
        return None
    return _find(block.out, block.wrt, out_shape, in_shape)


@of_maps
def _find(
    out: tuple[Map, ...], wrt: tuple[Map, ...], out_shape: tuple[int, ...], in_shape: tuple[int, ...]
) -> Views | None:
    over = labels(Block(1.0, (), out, wrt))
    into, of = strides(Block(1.0, (), out, ()), out_shape), strides(Block(1.0, (), wrt, ()), in_shape)
    if into is None or of is None or min(of[1].values(), default=0) < 0:
        return None
    first, second = ([each.get(label, 0) for label in over] for _, each in (into, of))
    if not is_injective([label.size for label in over], first):
        return None
    return Views(over, ([max(step, 0) for step in first], into[0]), (second, of[0]))


def entrywise_product(
    terms: Sequence[tuple[Block, Views]], vector: Tensor, size: int, like: TensorOptions, onto: Tensor | None
) -> Tensor:
    """Return the sum of blocks times a flattened vector, of a size; in place of the tensor that it is added ``onto``.

    Vector and product may have dims at their end that ride along. A first term that covers all of the product is
    written, not added to zeros.
    """
    vector, tail = vector.contiguous(), vector.shape[1:]
    covering = [term for term in terms if prod(label.size for label in term[1].over) == size][:1]
    product = onto
    if product is None and covering:
        terms = covering + [term for term in terms if term is not covering[0]]
        product = vector.new_empty((size, *tail))
    elif product is None:
        product = zeros((size, *tail), like.dtype, like.device)
    for number, (block, views) in enumerate(terms):
        into, given = _view(product, views.over, views.into), _view(vector, views.over, views.of)
        value = block.value
        if isinstance(value, Tensor):
            value = align(value, block.on, views.over)
            value = value.reshape([*value.shape, *[1] * len(tail)])
        if onto is None and covering and not number:
            torch.mul(given, value, out=into)
        elif isinstance(value, Tensor):
            into.addcmul_(given, value)
        else:
            into.add_(given, alpha=value)
    return product


def _view(flat: Tensor, over: tuple[Label, ...], place: tuple[list[int], int]) -> Tensor:
    """Return the view of a flattened tensor, whose other dims ride along, at places that labels name."""
    tail, strides = flat.shape[1:], flat.stride()
    sizes = [*(label.size for label in over), *tail]
    steps = [*(step * strides[0] for step in place[0]), *strides[1:]]
    return flat.as_strided(sizes, steps, place[1] * strides[0] + flat.storage_offset())
