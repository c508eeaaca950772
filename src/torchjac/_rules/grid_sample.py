"""Sampling an image at the points of a grid: each output entry is a weighted sum of a few pixels around its point.

Along each side the point x in [-1, 1] stands at u in the image, and the taps are pixels j with weights w that depend
on u: one for the nearest, two of the linear filter, four of the cubic one.

    out[n, c, o] = Σ_t w[n, o, t] image[n, c, j[n, o, t]]      u = ((x + 1) s − 1) / 2, or (x + 1) (s − 1) / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.block_views import swapped
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import BatchDims, Local, LocalJacobian, TermCost, rule
from .resample import cubic, linear

#: Taps along each side, by PyTorch's number of the mode: linear, nearest, cubic
COUNTS = (2, 1, 4)
ZEROS, BORDER, REFLECTION = range(3)


def _reflected(u: Tensor, low: float, high: float) -> Tensor:
    """Return a position brought between two ends by reflections."""
    span = high - low
    if span <= 0:
        return torch.zeros_like(u)
    away = (u - low).abs()
    turns = (away / span).floor()
    rest = away - turns * span
    return torch.where(turns % 2 == 0, rest, span - rest) + low


def _padded(u: Tensor, size: int, padding: int, corners: bool) -> Tensor:
    """Return a position as the padding has it: as it is, at the border, or reflected."""
    if padding == REFLECTION:
        u = _reflected(u, 0.0, size - 1.0) if corners else _reflected(u, -0.5, size - 0.5)
    return u if padding == ZEROS else u.clamp(0, max(size - 1, 0))


def _taps(x: Tensor, size: int, mode: int, padding: int, corners: bool) -> tuple[Tensor, Tensor]:
    """Places and weights of the taps along one side, in a dim of their own; at the edge for those outside, and 0."""
    u = (x + 1) / 2 * (size - 1) if corners else ((x + 1) * size - 1) / 2
    if COUNTS[mode] < 4:
        u = _padded(u, size, padding, corners)
    if COUNTS[mode] == 1:
        place = u.round().unsqueeze(-1)
        weight = torch.ones_like(place)
    else:
        shift = torch.arange(COUNTS[mode], device=x.device) - (COUNTS[mode] // 2 - 1)
        first = u.floor()
        weight = (linear if COUNTS[mode] == 2 else cubic)((u - first).unsqueeze(-1) - shift)
        place = first.unsqueeze(-1) + shift
    if COUNTS[mode] == 4:
        place = _padded(place, size, padding, corners)
    inside = (place >= 0) & (place <= size - 1)
    at = place.nan_to_num(0).clamp(0, max(size - 1, 0)).to(torch.int64)
    return at, torch.where(inside, weight, 0)


@rule("GridSampler2DBackward0", "GridSampler3DBackward0")
def grid_sample(node: Node) -> LocalJacobian:
    """Grid sampling: n and o pass for the grid, n and c for the image, whose taps are explicit too.

    ∂out[n,c,o]/∂image[n′,c′,j[n,o,t]] = δ[n,n′] δ[c,c′] w[n,o,t]      ∂out[n,c,o]/∂grid[n′,o′,d] = δ[n,n′] δ[o,o′] …

    Example: 9 × 9 pixels at 12 × 12 points: 4 taps for each of 144 entries of 11,664; of the grid 288 of 41,472.
    """
    image = node.into(0).shape if node.needs(0) else ()
    rank = len(node.shape) - 2
    batch_dims: dict[int, BatchDims] = {}
    if node.needs(0):
        batch_dims[0] = ((0, 0), (1, 1))
    if node.needs(1):
        batch_dims[1] = ((0, 0), *((2 + d, 1 + d) for d in range(rank)))
    entries, taps = prod(node.shape), COUNTS[node.saved("interpolation_mode")] ** rank

    def make() -> list[Local]:
        return [Local(0, _by_image(node, node.shape, image), selects=True)]

    return LocalJacobian(
        batch_dims=batch_dims,
        alternatives={0: lambda *_: TermCost(1, taps, entries * taps, make)} if node.needs(0) else {},
    )


@rule("GridSampler2DBackwardBackward0", "GridSampler3DBackwardBackward0")
def grid_sample_backward(node: Node) -> LocalJacobian:
    """The backward of grid sampling, of a cotangent g, an image and a grid: from g those of the image and of the grid.

    dimage[n,c,j[n,o,t]] += w[n,o,t] g[n,c,o], whose terms by g are those of `grid_sample` with the ends swapped

    In dgrid[n,o] the points n and o of g and grid pass; by the image, and in dimage by the grid, only n does.
    """
    shape, image = node.into(0).shape if node.needs(0) else (), node.saved("input").shape
    rank = len(image) - 2
    points = range(1, 1 + rank)
    first: dict[int, BatchDims] = {0: ((0, 0), (1, 1)), 2: ((0, 0),)}
    second: dict[int, BatchDims] = {
        0: ((0, 0), *((d, d + 1) for d in points)), 1: ((0, 0),), 2: ((0, 0), *((d, d) for d in points)),
    }  # fmt: skip
    entries, taps = prod(shape), COUNTS[node.saved("interpolation_mode")] ** rank

    def by_cotangent(slot: int, _: object) -> TermCost | None:
        if slot:
            return None

        def make() -> list[Local]:
            return [Local(0, swapped(_by_image(node, shape, image)), selects=True)]

        return TermCost(1, prod(shape[2:]), entries * taps, make)

    needed = [k for k in range(3) if node.needs(k)]
    return LocalJacobian(
        batch_dims={k: first[k] for k in needed if k in first},
        others={1: {k: second[k] for k in needed}},
        alternatives={0: by_cotangent} if node.needs(0) else {},
    )


def _by_image(node: Node, out: Sequence[int], image: Sequence[int]) -> Block:
    """Return the taps of each output entry: the block of an output of a shape by an image of a shape."""
    mode, rank = node.saved("interpolation_mode"), len(image) - 2
    points = node.saved("grid")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    corners = (node.saved("padding_mode"), node.saved("align_corners"))
    sides = [_taps(points[..., rank - 1 - d], image[2 + d], mode, *corners) for d in range(rank)]
    over = new_labels(out)
    batch, channel, *at = over
    each = [Label(COUNTS[mode]) for _ in range(rank)]
    shapes = [[COUNTS[mode] if d == own else 1 for d in range(rank)] for own in range(rank)]
    weights = [
        weight.reshape(*out[:1], *out[2:], *shape) for (_, weight), shape in zip(sides, shapes, strict=True)
    ]
    weight = reduce(torch.mul, weights).to(node.outputs[0].dtype)
    wrt: list[Map] = [bare(batch), bare(channel)]
    wrt += [Gather(place, (batch, *at, label)) for (place, _), label in zip(sides, each, strict=True)]
    return Block(weight, (batch, *at, *each), tuple(map(bare, over)), tuple(wrt))
