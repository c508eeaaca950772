"""The one law of composition: (∂out/∂mid) · (∂mid/∂wrt), both blocks, is again a block.

Bind the local Jacobian's output maps to the block's maps of the tensor between them, substitute, multiply
the values with labels aligned, and sum over every label that no longer stands in the answer: an einsum.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import lru_cache
from math import isfinite, prod

import torch
from torch import Tensor

from .block import Block
from .maps import Label, Map, Substitution, align, bare_label, labels_of, substitute, take
from .unify import unify


def compose(
    block: Block, local: Block, shape: Sequence[int], device: torch.device, selects: bool = False
) -> Block | None:
    """The product of a block and a local Jacobian over a tensor of the given shape; None if it is zero.

    Where the local Jacobian ``selects``, its zeros drop what they meet, even if that is not finite.
    """
    if local.wrt is local.out:
        return _scale(block, local, selects)
    by = _bind(block.wrt, local.out, shape)
    mid, out, left, on_left = block.wrt, block.out, block.value, block.on
    if by is None:
        by = unify(block.wrt, local.out, shape, device)
        if by is None:
            return None
        mid = tuple([substitute(map_, by) for map_ in block.wrt + local.out])
        out = tuple([substitute(map_, by) for map_ in block.out])
        if on_left:
            left, on_left = take(left, on_left, by)
    wrt = tuple([substitute(map_, by) for map_ in local.wrt])
    right, on_right = take(local.value, local.on, by) if local.on else (local.value, ())
    kept = labels_of(out)
    kept.update(labels_of(wrt))
    gone = {label: None for label in labels_of(mid) if label not in kept}
    for label in on_left + on_right:
        if label not in kept:
            gone[label] = None
    for label in kept:
        if label.size == 0:
            return None
    if gone:
        # A label that stands in no value is summed by multiplying with its size.
        times = prod(label.size for label in gone if label not in on_left and label not in on_right)
        if times == 0 or any(label.size == 0 for label in gone):
            return None
        if times != 1:
            left = left * times
        gone = {label: None for label in gone if label in on_left or label in on_right}
    return Block(*multiply(left, on_left, right, on_right, gone, selects), out, wrt)


def _scale(block: Block, local: Block, selects: bool) -> Block:
    """The product with a diagonal local Jacobian, all of whose labels are bare: no map changes."""
    if not local.on:
        if not isinstance(local.value, Tensor) and local.value == 1.0:
            return block
        return Block(block.value * local.value, block.on, block.out, block.wrt)
    by = {map_[1][0][0]: at for map_, at in zip(local.out, block.wrt, strict=True)}
    value, on = multiply(block.value, block.on, *take(local.value, local.on, by), (), selects)
    return Block(value, on, block.out, block.wrt)


def _bind(wrt: tuple[Map, ...], local_out: tuple[Map, ...], shape: Sequence[int]) -> Substitution | None:
    """The substitution where every dim of the local output is a bare label of its own (most rules)."""
    by: Substitution = {}
    for map_, at, size in zip(local_out, wrt, shape, strict=True):
        label = bare_label(map_)
        if label is None or label.size != size or label in by:
            return None
        by[label] = at
    return by


def multiply(
    left: Tensor | float,
    on_left: tuple[Label, ...],
    right: Tensor | float,
    on_right: tuple[Label, ...],
    gone: Container[Label],
    selects: bool = False,
) -> tuple[Tensor | float, tuple[Label, ...]]:
    """The product of two values with labels aligned, summed over the labels ``gone``.

    If the right one ``selects``, the product is zero wherever it is.
    """
    if selects and isinstance(right, Tensor) and (isinstance(left, Tensor) or not isfinite(left)):
        over = tuple(dict.fromkeys(on_left + on_right))
        right = align(right, on_right, over)
        left = align(left, on_left, over) if isinstance(left, Tensor) else left
        left, on_left = torch.where(right == 0, 0, left * right), over
        right, on_right = 1.0, ()
    if not gone:
        if not isinstance(left, Tensor) and left == 1.0:
            return right, on_right
        if not isinstance(right, Tensor) and right == 1.0:
            return left, on_left
        if on_left == on_right or not on_right:
            return left * right, on_left
        if not on_left:
            return left * right, on_right
        on = tuple(dict.fromkeys(on_left + on_right))
        return align(left, on_left, on) * align(right, on_right, on), on
    if not on_left or not on_right:
        value, on, other = (right, on_right, left) if on_right else (left, on_left, right)
        value = value.sum([dim for dim, label in enumerate(on) if label in gone])
        on = tuple(label for label in on if label not in gone)
        return (value if not isinstance(other, Tensor) and other == 1.0 else value * other), on
    on = tuple(label for label in dict.fromkeys(on_left + on_right) if label not in gone)
    number = {label: k for k, label in enumerate(dict.fromkeys(on_left + on_right))}
    equation = _equation(
        tuple(number[label] for label in on_left),
        tuple(number[label] for label in on_right),
        tuple(number[label] for label in on),
    )
    if left.dtype != right.dtype:
        dtype = torch.promote_types(left.dtype, right.dtype)
        left, right = left.to(dtype), right.to(dtype)
    return torch.einsum(equation, left, right), on


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lru_cache(maxsize=4096)
def _equation(left: tuple[int, ...], right: tuple[int, ...], on: tuple[int, ...]) -> str:
    spell = lambda dims: "".join(_LETTERS[dim] for dim in dims)  # noqa: E731
    return f"{spell(left)},{spell(right)}->{spell(on)}"
