"""Blocks as coordinates and values: what a sparse tensor is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .block import Block, TensorOptions, labels, values_over
from .dense_views import locate, unravelled, window_of
from .maps import Gather, Label


def coordinates(blocks: Sequence[Block], shape: Sequence[int], like: TensorOptions) -> tuple[Tensor, Tensor]:
    """Return sorted positions in the flattened dense tensor, each once, and the values there."""
    at = [torch.zeros(0, dtype=torch.int64, device=like.device)]
    values = [torch.zeros(0, dtype=like.dtype, device=like.device)]
    for block in blocks:
        over = labels(block)
        value = values_over(block, over, like.dtype, like.device)
        at.append(locate(block.out + block.wrt, over, shape, like.device).expand(value.shape).reshape(-1))
        values.append(value.reshape(-1))
    where, back = torch.unique(torch.cat(at), return_inverse=True)
    flat = torch.cat(values)
    if where.numel() == flat.numel():  # each once: the values in another order, without a sum
        order = torch.empty_like(back).scatter_(0, back, torch.arange(back.numel(), device=back.device))
        return where, flat[order]
    return where, flat.new_zeros(where.numel()).index_add(0, back, flat)


def covers_once(block: Block, shape: Sequence[int]) -> bool:
    """Return whether no entry is named twice, as far as strides tell."""
    return window_of(block, tuple(shape)) is not None


def coordinate_block(
    blocks: Sequence[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Block:
    """Return the sum of many small blocks as one list of coordinates and values."""
    return block_at(*coordinates(blocks, (*out_shape, *wrt_shape), like), out_shape, wrt_shape)


def block_at(where: Tensor, values: Tensor, out_shape: Sequence[int], wrt_shape: Sequence[int]) -> Block:
    """Return the block whose entries stand at some positions in the flattened dense tensor."""
    label = Label(where.numel())
    maps = tuple([Gather(at, (label,)) for at in unravelled(where, (*out_shape, *wrt_shape))])
    if not maps:  # one scalar by another: no dim has the label
        return Block(values.sum(), (), (), ())
    return Block(values, (label,), maps[: len(out_shape)], maps[len(out_shape) :])
