"""Pooling that chooses, and resampling that repeats: each output entry is one input entry of its plane."""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Gather, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels, reindexing
from .views import unravel


def _spatial(node: Node) -> int:
    return next(n for n in (1, 2, 3) if f"{n}D" in node.name)


POOLS = [f"{kind}{n}D" for kind in ("MaxPool", "AdaptiveMaxPool", "FractionalMaxPool") for n in (2, 3)]
POOLS = [f"{name}WithIndices" if name.startswith("MaxPool") else name for name in POOLS]


@reindexing(
    *[f"{name}Backward0" for name in POOLS],
    transposes=[
        *(f"{name}BackwardBackward0" for name in POOLS),
        "MaxUnpool2DBackward0",
        "MaxUnpool3DBackward0",
    ],
)
def max_pool(node: Node, _: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """Max pooling: each output is the entry of its plane that was largest.

    The transpose writes into zeros what stood there. Of entries that an unpooling writes to one place the last is kept,
    as the kernel keeps it; the gradient reads for all.
    """
    at = node.saved("result1" if node.name.removesuffix("Backward0") in POOLS else "indices")
    over, planes = new_labels(at.shape), len(shape) - _spatial(node)
    wrt = (*map(bare, over[:planes]), *unravel(at, over, shape[planes:]))
    return Block(1.0, (), tuple(map(bare, over)), wrt)


NEAREST = [f"UpsampleNearest{exact}{n}DBackward" for exact in ("", "Exact") for n in (1, 2, 3)]


@reindexing(*[f"{name}0" for name in NEAREST], transposes=[f"{name}Backward0" for name in NEAREST])
def upsample_nearest(node: Node, fine: tuple[int, ...], coarse: tuple[int, ...]) -> Block:
    """Nearest resampling: out[…, h, w] = x[…, at(h), at(w)], a table for each side.

    PyTorch's own kernel on the positions of each side says which is nearest.
    """
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
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))
