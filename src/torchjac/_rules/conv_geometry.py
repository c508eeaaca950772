"""The geometry of a convolution, which ties three tensors: at each offset of the kernel, or all windows at once.

Each is linear in the other two. With positions ``o`` of the coarse image, ``k`` of the kernel, and
``at = stride·o + dilation·k − padding`` of the fine image:

    conv            coarse[b, c, o]  = Σ weight[c, i, k] fine[b, i, at]       out is coarse, x is fine
    conv_transpose  fine[b, i, at]  += Σ weight[c, i, k] coarse[b, c, o]      out is fine, x is coarse

and the backward of either gives the third from the other two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._blocks.block import KEPT, Block
from .._blocks.maps import Affine, InternedMaps, Label, Map, bare, constant, labels_of
from .._blocks.windowed import Window, Windowed, between, windowed
from .._capture.tape import Node


class Geometry(NamedTuple):
    """The relation of the three tensors: their shapes by name, which image is coarse, and each dim of it."""

    shapes: Mapping[str, Sequence[int]]
    coarse: str
    fine: str
    groups: int
    dims: tuple[Dim, ...]


class Dim(NamedTuple):
    """One dim of the images: how many entries each has and the kernel, and how the window moves."""

    coarse: int
    fine: int
    kernel: int
    step: int
    dilate: int
    margin: int

    def inside(self, k: int) -> tuple[int, int]:
        """Return the first position at which offset ``k`` of the kernel is inside, and at how many it is."""
        shift = self.dilate * k - self.margin
        first = max(-(shift // self.step), 0)
        return first, max(min((self.fine - 1 - shift) // self.step + 1, self.coarse) - first, 0)


def by_dim(node: Node, rank: int, *names: str) -> list[Sequence[int]]:
    """Return saved settings of a window by dim; a number for all dims, as padding="valid" leaves, is saved once."""
    return [each * rank if len(each) == 1 else each for each in map(node.saved, names)]


def geometry(node: Node, shapes: Mapping[str, Sequence[int]]) -> Geometry:
    """Read the geometry off a node, for shapes of out, x and weight."""
    coarse, fine = ("x", "out") if node.saved("transposed") else ("out", "x")
    kernel = shapes["weight"][2:]
    moves = by_dim(node, len(kernel), "stride", "dilation", "padding")
    dims = tuple(map(Dim, shapes[coarse][2:], shapes[fine][2:], kernel, *moves))
    return Geometry(shapes, coarse, fine, node.saved("groups"), dims)


def sizes(g: Geometry, out: str) -> tuple[int, int, int]:
    """Return what `offsets` will give, for ∂out/∂either: how many, the entries tied to one of out, and all entries.

    Example: a kernel of 3 over 5 entries with padding 1 ties 4 + 5 + 4 entries, not 15.
    """
    offsets, windows = 1, g.shapes["x"][0]
    for dim in g.dims:
        counts = [dim.inside(k)[1] for k in range(dim.kernel)]
        offsets *= sum(map(bool, counts))
        windows *= sum(counts)
    weight = g.shapes["weight"]
    inner = {g.coarse: offsets * weight[1], g.fine: offsets * (weight[0] // g.groups), "weight": windows}
    return offsets, inner[out], windows * weight[0] * weight[1]


class ConvOperand(NamedTuple):
    """One of the three tensors at one offset of the kernel: its maps, and how it is read as a value."""

    maps: tuple[Map, ...]
    labels: tuple[Label, ...]
    read: Callable[[Tensor], Tensor]


def offsets(g: Geometry) -> Iterator[dict[str, ConvOperand]]:
    """Yield the three tensors at every offset of the kernel at which some window is inside."""
    weight = g.shapes["weight"]
    for at in product(*[range(dim.kernel) for dim in g.dims]):
        batch, group, c, i = map(Label, (g.shapes["x"][0], g.groups, weight[0] // g.groups, weight[1]))
        small: list[SpatialLabel] = []
        large: list[SpatialLabel] = []
        for k, dim in zip(at, g.dims, strict=True):
            first, count = dim.inside(k)
            label = Label(count)
            small.append((label, first, 1))
            large.append((label, dim.step * first + dim.dilate * k - dim.margin, dim.step))
        if any(label.size == 0 for label, _, _ in small):
            continue
        yield {
            g.coarse: _image(batch, group, c, small),
            g.fine: _image(batch, group, i, large),
            "weight": ConvOperand(
                (_channel(group, c), bare(i), *map(constant, at)),
                (group, c, i),
                partial(_at_offset, at),
            ),
        }


def image_windows(g: Geometry, out: str, weight: Tensor) -> Windowed | None:
    """Return ∂out/∂image as one block of all windows, for the other image; None where windows do not move along out.

    To the coarse image from the fine one ``at = stride·o + dilation·k − padding``, and the other way, at stride 1,
    ``o = at + dilation·k′ − (dilation·(K − 1) − padding)`` with k′ = K − 1 − k: the kernel is read from its end.
    """
    coarse = out == g.coarse
    if not coarse and any(dim.step != 1 for dim in g.dims):
        return None
    if weight.numel() == 0 or prod(weight.shape[2:]) == 1 or 0 in g.shapes["x"] or 0 in g.shapes["out"]:
        return None
    rows, columns = g.shapes["weight"][:2]
    block, seen = _image_windows(g.shapes["x"][0], g.groups, rows // g.groups, columns, g.dims, coarse)
    if not coarse:
        weight = weight.flip(tuple(range(2, weight.dim())))
    return windowed(block._replace(value=weight.reshape([label.size for label in block.on])), seen, False)


@lru_cache(maxsize=KEPT)
def _image_windows(
    batch: int, groups: int, channels: int, inner: int, dims: tuple[Dim, ...], coarse: bool
) -> tuple[Block, tuple[Window, ...]]:
    b, group, c, i = map(Label, (batch, groups, channels, inner))
    ends = _channel(group, c), _channel(group, i)
    seen: list[Window] = []
    places: list[Map] = []
    for dim in dims:
        tap, step, dilate = Label(dim.kernel), dim.step, dim.dilate
        if coarse:
            at, margin, size = Label(dim.coarse), dim.margin, dim.fine
        else:
            at, margin, size = Label(dim.fine), dilate * (dim.kernel - 1) - dim.margin, dim.coarse
        ranges = [between(at.size, step, dilate * k - margin, 0, size) for k in range(dim.kernel)]
        seen.append(Window(at, tap, tuple(ranges)))
        places.append(Affine(-margin, ((at, step), (tap, dilate))))
    out, wrt = ends if coarse else ends[::-1]
    at_out = InternedMaps([bare(b), out, *[bare(window.at) for window in seen]])
    at_wrt = InternedMaps([bare(b), wrt, *places])
    on = [label for label in (group, c, i) if label in labels_of((out, wrt))]
    return Block(1.0, (*on, *[window.tap for window in seen]), at_out, at_wrt), tuple(seen)


def _at_offset(at: tuple[int, ...], weight: Tensor) -> Tensor:
    index: tuple[slice | int, ...] = (slice(None), slice(None), *at)
    return weight[index]


#: A label with the position at which it begins and its step
SpatialLabel: TypeAlias = tuple[Label, int, int]


def _image(batch: Label, group: Label, channel: Label, spatial: Sequence[SpatialLabel]) -> ConvOperand:
    window = [slice(first, first + step * (label.size - 1) + 1, step) for label, first, step in spatial]
    return ConvOperand(
        (
            bare(batch),
            _channel(group, channel),
            *[Affine(first, ((label, step),)) for label, first, step in spatial],
        ),
        (batch, group, channel, *[label for label, _, _ in spatial]),
        lambda value: value[(slice(None), slice(None), *window)],
    )


def _channel(group: Label, channel: Label) -> Map:
    """Channel ``channel`` of a group; a group of one channel is the channel, one group has no label."""
    if group.size == 1:
        return bare(channel)
    return bare(group) if channel.size == 1 else Affine(0, ((group, channel.size), (channel, 1)))


def windows(g: Geometry, x: Tensor, laid_out: bool) -> Block:
    """∂out/∂weight of a convolution as one block: its value is x at s·o + d·k − p, zero where that is outside.

    Where nothing is outside it is a view of x; ``laid_out`` it is copied so that a product over the positions takes it
    as it lies. PyTorch would copy it position by position, three times as slowly.
    """
    weight = g.shapes["weight"]
    batch, group, c, i = map(Label, (x.shape[0], g.groups, weight[0] // g.groups, weight[1]))
    places = [Label(dim.coarse) for dim in g.dims]
    kernel = [Label(dim.kernel) for dim in g.dims]
    if any(dim.margin for dim in g.dims):
        x = torch.constant_pad_nd(x, [dim.margin for dim in reversed(g.dims) for _ in range(2)])
    for at, dim in enumerate(g.dims):
        x = x.unfold(2 + at, dim.dilate * (dim.kernel - 1) + 1, dim.step)
        x = x[..., :: dim.dilate] if dim.dilate > 1 else x
    rank = len(g.dims)
    x = x.permute(0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    on = (batch, *([group] if g.groups > 1 else []), i, *kernel, *places)
    out = (bare(batch), _channel(group, c), *map(bare, places))
    value = (x.contiguous() if laid_out else x).reshape([label.size for label in on])
    return Block(value, on, out, (_channel(group, c), *map(bare, [i, *kernel])))
