"""Resampling: each output entry is a weighted sum of a few input entries of its plane, its taps.

Along one side of n entries resampled to m, with places j[o, t] and weights w[o, t] that follow from the sizes alone:

    out[…, o, …] = Σ_t w[o, t] x[…, j[o, t], …]

as many as `TAPS` tells, or all that a filter reaches where it is stretched (``antialias``). Sides are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.block_views import swapped
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import Local, LocalJacobian, TermCost, rule

#: How the weights fall with the distance from the place in the input that an output entry stands for
Filter = Callable[[Tensor], Tensor]


def linear(distance: Tensor) -> Tensor:
    """Return the filter of two taps, a hat."""
    return (1 - distance.abs()).clamp_min(0)


def cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """The filter of four taps (Keys 1981, "Cubic convolution interpolation", eq. 4), whose slope at 1 is ``a``."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))


def lanczos(distance: Tensor) -> Tensor:
    """Return the filter of six taps."""
    return torch.where(distance.abs() < 3, torch.sinc(distance) * torch.sinc(distance / 3), 0)


#: The filter of each kind, and how many taps it has
TAPS: dict[str, tuple[Filter, int]] = {
    "Linear": (linear, 2), "Bilinear": (linear, 2), "Trilinear": (linear, 2), "Bicubic": (cubic, 4),
    "BilinearAa": (linear, 2), "BicubicAa": (lambda d: cubic(d, -0.5), 4), "LanczosAa": (lanczos, 6),
}  # fmt: skip


class Side(NamedTuple):
    """One side resampled: labels of the output entry and of the tap, and the taps' places and weights over both."""

    labels: tuple[Label, Label]
    place: Tensor
    weight: Tensor


def _scale(n: int, m: int, scale: float | None, corners: bool) -> float:
    """Return the distance of two output entries in the input."""
    if corners:
        return (n - 1) / (m - 1) if m > 1 else 0.0
    return 1 / scale if scale else n / max(m, 1)


def _taps(kind: str, n: int, m: int, scale: float | None, corners: bool, like: Tensor) -> Side:
    """Return the taps of a filter around each place in the input, those outside at the edge."""
    fall, count = TAPS[kind]
    step = _scale(n, m, scale, corners)
    if m == n and (step == 1 or count == 2):  # PyTorch copies
        count, at, place = 1, like.new_zeros(m), torch.arange(m, device=like.device)
    else:
        at = torch.arange(m, dtype=like.dtype, device=like.device)
        at = at * step if corners else (at + 0.5) * step - 0.5
        at = at.clamp_min(0) if count == 2 else at
        place = at.floor().to(torch.int64).clamp_max(n - 1)
        at = (at - place).clamp(0, 1)
    shift = torch.arange(count, device=like.device) + (1 - count // 2 if count > 1 else 0)
    place = (place.unsqueeze(1) + shift).clamp(0, max(n - 1, 0))
    return _side(place, fall(at.unsqueeze(1) - shift))


def _window(kind: str, n: int, m: int, scale: float | None, corners: bool, like: Tensor) -> Side:
    """The taps that a filter reaches, stretched where the output is coarser; some entries have fewer than all."""
    fall, count = TAPS[kind]
    step = _scale(n, m, scale, corners)
    stretch = max(step, 1.0)
    support = count / 2 * stretch
    center = (torch.arange(m, dtype=like.dtype, device=like.device) + 0.5) * step
    first = (center - support + 0.5).to(torch.int64).clamp_min(0)
    length = (center + support + 0.5).to(torch.int64).clamp_max(n) - first
    reach = torch.arange(min(2 * math.ceil(support) + 1, n), device=like.device)
    inside = reach < length.unsqueeze(1)
    place = first.unsqueeze(1) + torch.where(inside, reach, 0)
    weight = fall((place - center.unsqueeze(1) + 0.5) / stretch) * inside
    return _side(place, weight / weight.sum(1, keepdim=True))


def _side(place: Tensor, weight: Tensor) -> Side:
    """Taps without weight, which the sizes tell, stand where the heaviest does: they name no entry of their own."""
    if weight.numel():
        heaviest = place.gather(1, weight.abs().argmax(1, keepdim=True))
        place = torch.where(weight == 0, heaviest, place)
    m, count = place.shape
    return Side((Label(m), Label(count)), place, weight)


@rule(*(
    f"Upsample{kind.removesuffix('Aa')}{n}D{'Aa' * kind.endswith('Aa')}{back}Backward0"
    for kind, n in zip(TAPS, (1, 2, 3, 2, 2, 2, 2), strict=True)
    for back in ("", "Backward")
))  # fmt: skip
def resample(node: Node) -> LocalJacobian:
    """Resampling, by weights that are products of those along each side; planes pass.

    ∂out[b,o,p]/∂x[b′,j[o,t],i[p,s]] = δ[b,b′] w[o,t] v[p,s]

    Example: an image of 9 × 9 made 12 × 12 bilinearly: 4 taps for each of 144 entries, of 11,664.
    """
    backward = "BackwardBackward" in node.name
    fine, coarse = (node.shape, node.into(0).shape) if backward else (node.into(0).shape, node.shape)
    stem, rank = node.name.removeprefix("Upsample").split("D")[0][:-1], node.name.split("D")[0][-1]
    kind = stem + "Aa" * ("DAaBackward" in node.name)
    spatial = int(rank)
    planes = len(coarse) - spatial
    names = ("scales",) if spatial == 1 else ("scales_d", "scales_h", "scales_w")[3 - spatial :]
    count = TAPS[kind][1]

    def make() -> list[Local]:
        _, dtype, device = node.outputs[0]
        like = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=device)
        taps = _window if kind.endswith("Aa") else _taps
        sides = [
            taps(kind, fine[dim], coarse[dim], node.saved(name), node.saved("align_corners"), like)
            for dim, name in zip(range(planes, len(coarse)), names, strict=True)
        ]
        block = _separable(new_labels(coarse[:planes]), sides, dtype)
        return [Local(0, swapped(block) if backward else block, selects=True)]

    taps = count**spatial
    batch_dims = {0: tuple((d, d) for d in range(planes))}
    return LocalJacobian(
        batch_dims=batch_dims,
        alternatives={0: lambda *_: TermCost(1, 1 if backward else taps, prod(coarse) * taps, make)},
    )


def _separable(batch: tuple[Label, ...], sides: list[Side], dtype: torch.dtype) -> Block:
    """Return the block of several sides."""
    value = sides[0].weight
    on: tuple[Label, ...] = sides[0].labels
    for side in sides[1:]:
        value, on = value[..., None, None] * side.weight, on + side.labels
    out: tuple[Map, ...] = tuple(map(bare, (*batch, *(side.labels[0] for side in sides))))
    wrt: tuple[Map, ...] = (*map(bare, batch), *(Gather(side.place, side.labels) for side in sides))
    return Block(value.to(dtype), on, out, wrt)
