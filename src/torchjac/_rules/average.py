"""Average pooling: each output entry is the mean of a window of its plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.block_views import swapped
from .._blocks.maps import Affine, Gather, Label, Map, bare
from .._capture.tape import Meta, Node
from .conv_geometry import by_dim
from .einsum_notation import new_labels, spelling
from .registry import Local, LocalJacobian, rule


class WindowPart(NamedTuple):
    """Some places in the windows along one dim: maps of both tensors, and their weight, a number or one for each."""

    coarse: Map
    fine: Map
    label: Label
    weight: Tensor | float


#: The parts along one dim, told by the sizes of both tensors there
Windows: TypeAlias = Callable[[int, int], list[WindowPart]]


@rule("AvgPool2DBackward0", "AvgPool3DBackward0", "AvgPool2DBackwardBackward0", "AvgPool3DBackwardBackward0")
def avg_pool(node: Node) -> LocalJacobian:
    """Average pooling: out[b, o] = Σⱼ x[b, stride·o + j − padding] / size[o], windows trimmed to the image.

    ∂out[b,o]/∂x[b′,stride·o+j−padding] = δ[b,b′] / size[o]

    Windows that do not overlap are one block without a number; others have one for each place in the window.

    Example: windows of 2×2 on 4×6: 24 of 144 entries, no number stored.
    """
    dims = 2 if "2D" in node.name else 3
    size, step, margin = by_dim(node, dims, "kernel_size", "stride", "padding")
    divisor = node.saved("divisor_override")
    counted = "whole" if divisor else "padded" if node.saved("count_include_pad") else "inside"

    def windows(k: int, s: int, p: int) -> Windows:
        return lambda coarse, fine: _windows(node.outputs[0], coarse, fine, (k, s, p), counted)

    every = [windows(*each) for each in zip(size, step or size, margin, strict=True)]
    return _pooled(node, every, prod(size) / divisor if divisor else 1.0)


@rule(
    "AdaptiveAvgPool2DBackward0", "AdaptiveAvgPool3DBackward0", "AdaptiveAvgPool2DBackwardBackward0",
    "AdaptiveAvgPool3DBackwardBackward0",
)  # fmt: skip
def adaptive_avg_pool(node: Node) -> LocalJacobian:
    """Average pooling of n entries to m: the window of o begins at ⌊o·n/m⌋ and ends at ⌈(o+1)·n/m⌉."""
    return _pooled(node, [partial(_adaptive, node.outputs[0])] * (2 if "2D" in node.name else 3))


def _pooled(node: Node, every: Sequence[Windows], factor: float = 1.0) -> LocalJacobian:
    """Return the planes pass; the terms are products of the parts along each dim."""
    if not node.needs(0):  # the backward of pooling takes the tensor too, for its shape
        return LocalJacobian()
    backward = "BackwardBackward" in node.name
    coarse, fine = (node.into(0).shape, node.shape) if backward else (node.shape, node.into(0).shape)
    planes = len(coarse) - len(every)

    def terms() -> list[Local]:
        sides = zip(every, coarse[planes:], fine[planes:], strict=True)
        found = []
        for parts in product(*[windows(m, n) for windows, m, n in sides]):
            over = new_labels(coarse[:planes])
            value, on = _weight(parts, factor)
            out, wrt = (
                (*map(bare, over), *maps) for maps in ([p.coarse for p in parts], [p.fine for p in parts])
            )
            block = Block(value, on, out, wrt)
            found.append(Local(0, swapped(block) if backward else block))
        return found

    return LocalJacobian(
        batch_dims={0: tuple([(d, d) for d in range(planes)])}, alternatives={0: lambda *_: spelling(terms())}
    )


def _weight(parts: Sequence[WindowPart], factor: float) -> tuple[Tensor | float, tuple[Label, ...]]:
    """Return the product of the weights along each dim, and the labels it varies along."""
    value: Tensor | float = factor
    on: tuple[Label, ...] = ()
    for part in parts:
        weight = part.weight
        if isinstance(weight, Tensor):
            value = value.unsqueeze(-1) if isinstance(value, Tensor) else value
            on = (*on, part.label)
        value = value * weight
    return value, on


def _windows(
    meta: Meta, coarse: int, fine: int, window: tuple[int, int, int], counted: str
) -> list[WindowPart]:
    """Return windows of k entries every s entries from −p on.

    ``counted`` are the "whole" window, what is in the "padded" image, or what is "inside" the image.
    """
    k, s, p = window
    reach = (coarse - 1) * s - p + k
    if p == 0 and s >= k and reach <= fine:
        return [_apart(coarse, k, s)]
    inverse: Tensor | float = 1 / k
    if (counted == "padded" and reach > fine + p) or (counted == "inside" and (p or reach > fine)):
        begin = torch.arange(coarse, device=meta.device) * s - p
        end = (begin + k).clamp(max=fine + p)
        length = end - begin if counted == "padded" else end.clamp(max=fine) - begin.clamp(min=0)
        inverse = 1 / length.to(meta.dtype)
    parts = []
    for shift in range(-p, k - p):
        first = max(-(shift // s), 0)
        label = Label(max(min((fine - 1 - shift) // s + 1, coarse) - first, 0))
        weight = inverse.narrow(0, first, label.size) if isinstance(inverse, Tensor) else inverse
        maps = Affine(first, ((label, 1),)), Affine(s * first + shift, ((label, s),))
        parts.append(WindowPart(*maps, label, weight))
    return parts


def _apart(coarse: int, k: int, s: int) -> WindowPart:
    """Return windows of k entries every s entries, none of which overlap."""
    window, place = Label(coarse), Label(k)
    return WindowPart(bare(window), Affine(0, ((window, s), (place, 1))), window, 1 / k)


def _adaptive(meta: Meta, coarse: int, fine: int) -> list[WindowPart]:
    """The windows of an adaptive pool: apart where one size divides the other, or else a table of their entries."""
    if coarse == 0 or fine % coarse == 0:
        return [_apart(coarse, fine // max(coarse, 1), fine // max(coarse, 1))]
    at = torch.arange(coarse, device=meta.device)
    begin, end = at * fine // coarse, -(-(at + 1) * fine // coarse)
    length = end - begin
    window = at.repeat_interleave(length)
    entry = Label(window.shape[0])
    place = torch.arange(entry.size, device=meta.device) - (length.cumsum(0) - length - begin)[window]
    weight = (1 / length.to(meta.dtype))[window]
    return [WindowPart(Gather(window, (entry,)), Gather(place, (entry,)), entry, weight)]
