"""How rules spell local Jacobians: letters for labels, as in an einsum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Label, Map, bare, constant
from .._capture.tape import Node
from .registry import Local

ZERO = constant(0)


def new_labels(shape: Sequence[int]) -> tuple[Label, ...]:
    """One label for each dim."""
    return tuple(Label(size) for size in shape)


@lru_cache(maxsize=1024)
def diagonal_maps(shape: tuple[int, ...]) -> tuple[tuple[Label, ...], tuple[Map, ...]]:
    """Labels and bare maps of a diagonal local Jacobian, for all nodes of a shape.

    They can be shared because composition replaces every label of a diagonal: none ends up in a block.
    """
    over = new_labels(shape)
    return over, tuple(map(bare, over))


def spread(value: Tensor, over: Sequence[Label]) -> tuple[Tensor, tuple[Label, ...]]:
    """A tensor that broadcasts over labels, without the dims along which it is constant."""
    on = []
    over = over[len(over) - value.dim() :]
    dim = 0
    for label, size, stride in zip(over, value.shape, value.stride(), strict=True):
        if size == 1 or (stride == 0 and size > 0):
            value = value.select(dim, 0)
        else:
            on.append(label)
            dim += 1
    return value, tuple(on)


def broadcast(over: Sequence[Label], shape: Sequence[int]) -> tuple[Map, ...]:
    """The maps of an input of a shape that broadcasts over the labels of the output."""
    over = over[len(over) - len(shape) :]
    return tuple(bare(label) if label.size == size else ZERO for label, size in zip(over, shape, strict=True))


def local(
    node: Node, k: int, out: str, wrt: str, value: Tensor | float = 1.0, on: str = "", slot: int = 0
) -> Local:
    """The local Jacobian spelled by letters: ``local(node, 0, "i k", "i j", b, on="j k")``.

    Each word names the label of one dim; ``0`` is a dim that stays at position 0. Sizes are read off the
    node's output and input.
    """
    labels: dict[str, Label] = {}
    maps = []
    for words, shape in ((out.split(), node.outputs[slot].shape), (wrt.split(), node.into(k).shape)):
        if len(words) != len(shape):
            raise ValueError(
                f"local: {' '.join(words)!r} names {len(words)} dims of a tensor of shape {shape}"
            )
        side = []
        for word, size in zip(words, shape, strict=True):
            if word == "0":
                side.append(ZERO)
            else:
                side.append(bare(labels.setdefault(word, Label(size))))
        maps.append(tuple(side))
    return Local(k, Block(value, tuple(labels[word] for word in on.split()), *maps), slot)


def ones(node: Node, slot: int = 0) -> Tensor:
    """The cotangent of all ones."""
    shape, dtype, device = node.outputs[slot]
    return torch.ones(shape, dtype=dtype, device=device)
