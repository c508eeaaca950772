"""Convolutions: a block for each offset of the kernel, its ranges trimmed to where the window is inside.

A convolution ties three tensors, each linear in the other two. With positions ``o`` of the coarse image, ``k`` of
the kernel, and ``at = stride·o + dilation·k − padding`` of the fine image:

    conv            coarse[b, c, o]  = Σ weight[c, i, k] fine[b, i, at]       out is coarse, x is fine
    conv_transpose  fine[b, i, at]  += Σ weight[c, i, k] coarse[b, c, o]      out is fine, x is coarse

and the backward of either gives the third from the other two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple, TypeAlias

from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Affine, Label, Map, bare, constant
from .._capture.tape import Node
from .registry import Known, Local, Passes, rule
from .spell import new_labels


class Side(NamedTuple):
    """One of the three tensors at one offset of the kernel: its maps, and how it is read as a value."""

    maps: tuple[Map, ...]
    labels: tuple[Label, ...]
    read: Callable[[Tensor], Tensor]


#: The shapes of the three tensors by name: out, x and weight
Shapes: TypeAlias = Mapping[str, Sequence[int]]


def offsets(node: Node, shapes: Shapes) -> Iterator[dict[str, Side]]:
    """The three tensors at every offset of the kernel at which some window is inside.

    Example: a kernel of 3 over 5 entries with padding 1 ties 4 + 5 + 4 entries, not 15.
    """
    coarse, fine = ("x", "out") if node.saved("transposed") else ("out", "x")
    weight, groups = shapes["weight"], node.saved("groups")
    # A number for all dims, as padding="valid" leaves, is saved once.
    saved = (node.saved(name) for name in ("stride", "dilation", "padding"))
    step, dilate, margin = (each * (len(weight) - 2) if len(each) == 1 else each for each in saved)
    sides = list(zip(shapes[coarse][2:], shapes[fine][2:], step, dilate, margin, strict=True))
    for at in product(*map(range, weight[2:])):
        batch, group, c, i = map(Label, (shapes["x"][0], groups, weight[0] // groups, weight[1]))
        small: list[Ranged] = []
        large: list[Ranged] = []
        for k, (count, size, s, d, p) in zip(at, sides, strict=True):
            shift = d * k - p
            first = max(-(shift // s), 0)
            label = Label(max(min((size - 1 - shift) // s + 1, count) - first, 0))
            small.append((label, first, 1))
            large.append((label, s * first + shift, s))
        if any(label.size == 0 for label, _, _ in small):
            continue
        yield {
            coarse: _image(batch, group, c, small),
            fine: _image(batch, group, i, large),
            "weight": Side(
                (_channel(group, c), bare(i), *map(constant, at)),
                (group, c, i),
                lambda value, at=at: value[(slice(None), slice(None), *at)],
            ),
        }


#: A label with the position at which it begins and its step
Ranged: TypeAlias = tuple[Label, int, int]


def _image(batch: Label, group: Label, channel: Label, spatial: Sequence[Ranged]) -> Side:
    window = [slice(first, first + step * (label.size - 1) + 1, step) for label, first, step in spatial]
    return Side(
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


def _value(side: Side, tensor: Tensor) -> tuple[Tensor, tuple[Label, ...]]:
    """A tensor at one offset of the kernel, without the labels that its maps do not name."""
    value = side.read(tensor)
    used = {label for map_ in side.maps for label in map_.labels}
    on = tuple([label for label in side.labels if label in used])
    return value.reshape([label.size for label in on]), on


def _terms(
    node: Node, shapes: Shapes, k: int, out: str, wrt: str, other: str, tensor: Tensor, slot: int = 0
) -> list[Local]:
    """The terms of ∂out/∂wrt, each of the three sides by its name; ``tensor`` is that of the third."""
    return [
        Local(k, Block(*_value(sides[other], tensor), sides[out].maps, sides[wrt].maps), slot)
        for sides in offsets(node, shapes)
    ]


@rule("ConvolutionBackward0", "CudnnConvolutionBackward0", "MiopenConvolutionBackward0")
def convolution(node: Node) -> Known:
    """Convolution: out[b,c,o] = Σ weight[c,i,k] x[b,i,at(o,k)] + bias[c], and its transpose.

    ∂out[b,c,o]/∂x[b′,i,at(o,k)] = δ[b,b′] weight[c,i,k]      one block for each k
    ∂out[b,c,o]/∂weight[c′,i,k]  = δ[c,c′] x[b,i,at(o,k)]
    ∂out[b,c,o]/∂bias[c′]        = δ[c,c′]

    By calls the batch passes for x and the output channel for the weight.

    Example: a kernel of 3×3 on an image of 64×64: 9 numbers stand for 36,100 of 16.8 million entries.
    """
    transposed = node.saved("transposed")
    passes: dict[int, Passes] = {}
    spelled: dict[int, Callable[[], list[Local]]] = {}
    terms = []
    if node.needs(0):
        passes[0] = ((0, 0),)

        def wrt_x() -> list[Local]:
            weight = node.saved("weight")
            shapes = {"out": node.shape, "x": node.into(0).shape, "weight": weight.shape}
            return _terms(node, shapes, 0, "out", "x", "weight", weight)

        spelled[0] = wrt_x
    if node.needs(1):
        passes[1] = () if transposed and node.saved("groups") > 1 else ((1, int(transposed)),)

        def wrt_weight() -> list[Local]:
            x = node.saved("input")
            shapes = {"out": node.shape, "x": x.shape, "weight": node.into(1).shape}
            return _terms(node, shapes, 1, "out", "weight", "x", x)

        spelled[1] = wrt_weight
    if node.needs(2):
        over = new_labels(node.shape)
        terms.append(Local(2, Block(1.0, (), tuple(map(bare, over)), (bare(over[1]),))))
    return Known(terms, passes, spelled=spelled)


@rule("ConvolutionBackwardBackward0")
def convolution_backward(node: Node) -> Known:
    """The backward of a convolution: from g, the cotangent of out, those of x, weight and bias.

    gx[b,i,at(o,k)] = Σ weight[c,i,k] g[b,c,o]
    gw[c,i,k]       = Σ g[b,c,o] x[b,i,at(o,k)]
    gb[c]           = Σ g[b,c,o]
    """
    saved = {
        name: node.saved(key) for name, key in (("out", "grad_output"), ("x", "input"), ("weight", "weight"))
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}

    def wrt(k: int, name: str) -> list[Local]:
        found = []
        for slot, out in enumerate(("x", "weight")):
            if out != name and node.outputs[slot].shape == shapes[out]:
                (other,) = {"out", "x", "weight"} - {out, name}
                found += _terms(node, shapes, k, out, name, other, saved[other], slot)
        if name == "out" and node.outputs[2].shape:
            over = new_labels(shapes["out"])
            found.append(Local(0, Block(1.0, (), (bare(over[1]),), tuple(map(bare, over))), slot=2))
        return found

    inputs = [(k, name) for k, name in enumerate(("out", "x", "weight")) if node.needs(k)]
    return Known((), {k: () for k, _ in inputs}, spelled={k: partial(wrt, k, name) for k, name in inputs})
