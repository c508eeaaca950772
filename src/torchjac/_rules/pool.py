"""Pooling that chooses, and resampling that repeats: each output entry is one input entry of its plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import Local, rule
from .views import unravel


def _spatial(node: Node) -> int:
    return next(n for n in (1, 2, 3) if f"{n}D" in node.name)


def _chosen(at: Tensor, shape: Sequence[int], spatial: int) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of the entries chosen at positions ``at`` of flattened planes, and of the planes of a shape."""
    over = new_labels(at.shape)
    planes = len(shape) - spatial
    return tuple(map(bare, over)), (*map(bare, over[:planes]), *unravel(at, over, shape[planes:]))


@rule(
    "MaxPool2DWithIndicesBackward0", "MaxPool3DWithIndicesBackward0", "AdaptiveMaxPool2DBackward0",
    "AdaptiveMaxPool3DBackward0", "FractionalMaxPool2DBackward0", "FractionalMaxPool3DBackward0",
    any_dtype=True,
)  # fmt: skip
def max_pool(node: Node) -> list[Local]:
    """Max pooling: each output is the entry of its plane that was largest."""
    maps = _chosen(node.saved("result1"), node.into(0).shape, _spatial(node))
    return [Local(0, Block(1.0, (), *maps))]


@rule("MaxUnpool2DBackward0", "MaxUnpool3DBackward0", any_dtype=True)
def max_unpool(node: Node) -> list[Local]:
    """Max unpooling: out[…, at[…, i]] = x[…, i], zero elsewhere."""
    at = node.saved("indices")
    # Of entries written to one place the last is kept, as the kernel keeps it; the gradient reads for all.
    small, whole = _chosen(at, node.shape, _spatial(node))
    return [Local(0, Block(1.0, (), whole, small))]


@rule(
    "MaxPool2DWithIndicesBackwardBackward0", "MaxPool3DWithIndicesBackwardBackward0",
    "AdaptiveMaxPool2DBackwardBackward0", "AdaptiveMaxPool3DBackwardBackward0",
    "FractionalMaxPool2DBackwardBackward0", "FractionalMaxPool3DBackwardBackward0",
    any_dtype=True,
)  # fmt: skip
def max_pool_backward(node: Node) -> list[Local]:
    """The transpose of `max_pool`, linear in the cotangent; the pooled tensor only chose the places."""
    small, whole = _chosen(node.saved("indices"), node.shape, _spatial(node))
    return [Local(0, Block(1.0, (), whole, small))] if node.needs(0) else []


NEAREST = [f"UpsampleNearest{exact}{n}DBackward" for exact in ("", "Exact") for n in (1, 2, 3)]


@rule(*(f"{name}0" for name in NEAREST), any_dtype=True)
def upsample_nearest(node: Node) -> list[Local]:
    """Nearest resampling: out[…, h, w] = x[…, at(h), at(w)], a table for each side."""
    fine, coarse = _nearest(node, node.shape, node.into(0).shape)
    return [Local(0, Block(1.0, (), fine, coarse))]


@rule(*(f"{name}Backward0" for name in NEAREST), any_dtype=True)
def upsample_nearest_backward(node: Node) -> list[Local]:
    """The transpose of `upsample_nearest`."""
    fine, coarse = _nearest(node, node.into(0).shape, node.shape)
    return [Local(0, Block(1.0, (), coarse, fine))]


def _nearest(
    node: Node, fine: Sequence[int], coarse: Sequence[int]
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of both images; PyTorch's own kernel on the positions of each side says which is nearest."""
    aten = torch.ops.aten
    resample = aten._upsample_nearest_exact1d if "Exact" in node.name else aten.upsample_nearest1d
    over = new_labels(fine)
    spatial = _spatial(node)
    sides = ("scales",) if spatial == 1 else ("scales_d", "scales_h", "scales_w")[3 - spatial :]
    wrt: list[Map] = [bare(label) for label in over]
    for dim, name in zip(range(2, len(fine)), sides, strict=True):
        positions = torch.arange(coarse[dim], dtype=torch.float64, device=node.outputs[0].device)
        at = resample(positions.view(1, 1, -1), [fine[dim]], node.saved(name)).view(-1).to(torch.int64)
        wrt[dim] = Gather(at, (over[dim],))
    return tuple(map(bare, over)), tuple(wrt)
