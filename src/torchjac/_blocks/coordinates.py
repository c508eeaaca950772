"""Blocks as coordinates and values: what a sparse tensor is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .block import Block, labels
from .maps import align
from .write import is_injective, locate, strides


def coordinates(blocks: Sequence[Block], shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted positions in the flattened dense tensor, each once, and the values there."""
    at, values = [like.new_zeros(0, dtype=torch.int64)], [like.new_zeros(0)]
    for block in blocks:
        over = labels(block)
        sizes = [label.size for label in over]
        at.append(locate(block, over, shape, like.device).expand(sizes).reshape(-1))
        value = block.value
        value = align(value, block.on, over) if isinstance(value, Tensor) else like.new_full((), value)
        values.append(value.expand(sizes).reshape(-1))
    where, back = torch.unique(torch.cat(at), return_inverse=True)
    flat = torch.cat(values)
    return where, flat.new_zeros(where.numel()).index_add(0, back, flat)


def covers_once(block: Block, shape: Sequence[int]) -> bool:
    """Whether no entry is named twice, as far as strides tell."""
    place = strides(block, shape)
    return place is not None and is_injective(place[1], labels(block))
