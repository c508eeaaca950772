"""The block: one term of a Jacobian, a small tensor of values plus the law that says where they stand.

J[o₁, o₂, … ; v₁, v₂, …] = Σ_labels  value[labels] · Π δ(o_d, out_d(labels)) · Π δ(v_d, wrt_d(labels))
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .maps import Gather, Label, Map, bare, bare_label, labels_of


class Block(NamedTuple):
    """One term of the Jacobian of an output with respect to a tensor.

    ``value`` is a number, constant along every label, or a tensor with one dim per label of ``on``;
    ``out`` and ``wrt`` hold an index map for each dim of the output and of the tensor.
    """

    value: Tensor | float
    on: tuple[Label, ...]
    out: tuple[Map, ...]
    wrt: tuple[Map, ...]


def labels(block: Block) -> tuple[Label, ...]:
    """All labels of a block, in the order in which its maps name them."""
    return tuple(labels_of(block.out + block.wrt))


def stored(block: Block) -> int:
    """How many numbers a block holds, index tensors included."""
    count = block.value.numel() if isinstance(block.value, Tensor) else 0
    tables = [map_.index for map_ in block.out + block.wrt if type(map_) is Gather]
    if tables:
        count += sum({id(index): index.numel() for index in tables}.values())
    return count


def entries(block: Block) -> int:
    """How many entries of the Jacobian a block writes (an entry written twice counts twice)."""
    return prod(label.size for label in labels(block))


def identity(shape: Sequence[int]) -> Block:
    """The Jacobian of a tensor with respect to itself: no numbers at all."""
    maps = tuple(bare(Label(size)) for size in shape)
    return Block(1.0, (), maps, maps)


def tables_to(block: Block, device: torch.device) -> Block:
    """The block with its index tensors on a device, as its value is."""

    def move(map_: Map) -> Map:
        return Gather(map_.index.to(device), map_.labels) if type(map_) is Gather else map_

    return block._replace(out=tuple(map(move, block.out)), wrt=tuple(map(move, block.wrt)))


def is_dense(block: Block, shape: Sequence[int]) -> bool:
    """Whether every dim of the output and of the tensor has a label of its own over its whole range.

    ``shape`` is that of both together.
    """
    if not isinstance(block.value, Tensor):
        return False
    maps = block.out + block.wrt
    seen = set()
    for map_, size in zip(maps, shape, strict=True):
        label = bare_label(map_)
        if label is None or label.size != size:
            return False
        seen.add(label)
    return len(seen) == len(maps) and len(block.on) == len(maps)
