"""Formulas that take many cotangents at once through ops on images: rows are more images to PyTorch's kernels.

An image is the last dims of a tensor, one for channels and one to three of space.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._capture.tape import Node
from .batched_formulas import Results, dim_of, formula

_aten = torch.ops.aten


class Kernel(NamedTuple):
    """The backward kernel of an op, the number of dims of space, and the names of what it is told beside the sizes."""

    call: Any
    space: int
    names: tuple[str, ...]


_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

#: Those that are given the input, of which the shape alone is read
OF_INPUT = {
    "AvgPool2DBackward0": Kernel(_aten.avg_pool2d_backward, 2, _POOL),
    "AvgPool3DBackward0": Kernel(_aten.avg_pool3d_backward, 3, _POOL),
    "AdaptiveAvgPool2DBackward0": Kernel(_aten._adaptive_avg_pool2d_backward, 2, ()),
    "AdaptiveAvgPool3DBackward0": Kernel(_aten._adaptive_avg_pool3d_backward, 3, ()),
    **{
        f"{kind}Pad{space}DBackward0": Kernel(
            getattr(_aten, f"{kind.lower()}_pad{space}d_backward"), space, ("padding",)
        )
        for kind in ("Reflection", "Replication")
        for space in (1, 2, 3)
    },
}

_SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}

#: Those that are given the sizes of output and input
OF_SIZES = {
    f"Upsample{kind}{space}DBackward0": Kernel(
        getattr(_aten, f"{op}{space}d_backward"), space, (*aligned, *_SCALES[space])
    )
    for kind, op, spaces, aligned in (
        ("Nearest", "upsample_nearest", (1, 2, 3), ()),
        ("NearestExact", "_upsample_nearest_exact", (1, 2, 3), ()),
        ("Linear", "upsample_linear", (1,), ("align_corners",)),
        ("Bilinear", "upsample_bilinear", (2,), ("align_corners",)),
        ("Bicubic", "upsample_bicubic", (2,), ("align_corners",)),
        ("Trilinear", "upsample_trilinear", (3,), ("align_corners",)),
    )
    for space in spaces
}


def _images(node: Node, count: int, rows: Tensor, space: int) -> Tensor:
    """Return the images of all rows."""
    return rows.reshape(count * prod(node.shape[: -space - 1]), *node.shape[-space - 1 :])


@formula(*OF_INPUT)
def _of_input(node: Node, count: int, rows: Tensor) -> Results:
    kernel, shape = OF_INPUT[node.name], node.into(0).shape
    images = _images(node, count, rows, kernel.space)
    sizes = len(images), *shape[-kernel.space - 1 :]
    like = torch.zeros((), dtype=rows.dtype, device=rows.device).expand(sizes)
    return [kernel.call(images, like, *map(node.saved, kernel.names)).reshape(count, *shape)]


@formula(*OF_SIZES)
def _of_sizes(node: Node, count: int, rows: Tensor) -> Results:
    kernel, shape = OF_SIZES[node.name], node.into(0).shape
    images = _images(node, count, rows, kernel.space)
    sizes = len(images), *shape[1:]
    found = kernel.call(images, node.saved("output_size"), sizes, *map(node.saved, kernel.names))
    return [found.reshape(count, *shape)]


@formula("GridSampler2DBackward0", "GridSampler3DBackward0")
def _grid_sample(node: Node, count: int, rows: Tensor) -> Results | None:
    if torch.is_grad_enabled():
        return None  # the kernel has no derivative
    kernel = _aten.grid_sampler_2d_backward if "2D" in node.name else _aten.grid_sampler_3d_backward
    saved = [node.saved(name) for name in ("input", "grid")]
    many = [value.expand(count, *value.shape).flatten(0, 1) for value in saved]
    settings = [node.saved(name) for name in ("interpolation_mode", "padding_mode", "align_corners")]
    needed = [node.needs(k) for k in range(2)]
    found = kernel(rows.flatten(0, 1), *many, *settings, needed)
    return [
        each.view(count, *value.shape) if need else None
        for each, value, need in zip(found, saved, needed, strict=True)
    ]


@formula("PixelShuffleBackward0")
def _pixel_shuffle(node: Node, count: int, rows: Tensor) -> Results:
    return [_aten.pixel_unshuffle.default(rows, node.saved("upscale_factor"))]


@formula("PixelUnshuffleBackward0")
def _pixel_unshuffle(node: Node, count: int, rows: Tensor) -> Results:
    return [_aten.pixel_shuffle.default(rows, node.saved("downscale_factor"))]


@formula("ChannelShuffleBackward0")
def _channel_shuffle(node: Node, count: int, rows: Tensor) -> Results:
    groups = node.shape[1] // node.saved("groups")
    return [_aten.channel_shuffle.default(rows.flatten(0, 1), groups).view(rows.shape)]


@formula("GluBackward0")
def _glu(node: Node, count: int, rows: Tensor) -> Results:
    x = node.saved("self")
    gate = x.narrow(d := dim_of(node, "dim", x.dim()) - 1, x.shape[d] // 2, x.shape[d] // 2).sigmoid()
    value = x.narrow(d, 0, x.shape[d] // 2)
    scaled = rows * gate
    return [torch.cat([scaled, scaled * (value * (1 - gate))], d + 1)]


@formula(
    "MaxPool2DWithIndicesBackward0", "MaxPool3DWithIndicesBackward0", "AdaptiveMaxPool2DBackward0",
    "AdaptiveMaxPool3DBackward0", "FractionalMaxPool2DBackward0", "FractionalMaxPool3DBackward0",
)  # fmt: skip
def _max_pool(node: Node, count: int, rows: Tensor, *_: None) -> Results:
    shape, space = node.into(0).shape, 3 if "3D" in node.name else 2
    planes, image = prod(shape[:-space]), prod(shape[-space:])
    zeros = torch.zeros((count, planes, image), dtype=rows.dtype, device=rows.device)
    table = node.saved("result1").reshape(1, planes, -1).expand(count, -1, -1)
    return [zeros.scatter_add(2, table, rows.reshape(count, planes, -1)).reshape(count, *shape)]


@formula("MaxUnpool2DBackward0", "MaxUnpool3DBackward0")
def _max_unpool(node: Node, count: int, rows: Tensor) -> Results:
    shape, space = node.into(0).shape, 3 if "3D" in node.name else 2
    planes, image = prod(shape[:-space]), prod(node.shape[-space:])
    table = node.saved("indices").reshape(1, planes, -1).expand(count, -1, -1)
    return [rows.reshape(count, planes, image).gather(2, table).reshape(count, *shape)]
