"""Convolutions: a block for each offset of the kernel, its ranges trimmed to where the window is inside.

The weight of a convolution has one block, of all windows at once, where that names no entry that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from torch import Tensor

from .._blocks.block import Block
from .._blocks.cost import windows_pay
from .._blocks.maps import Gather, Label, bare, labels_of
from .._blocks.windowed import taps
from .._capture.tape import Node
from .conv_geometry import ConvOperand, Geometry, geometry, image_windows, offsets, sizes, windows
from .einsum_notation import new_labels, spelling
from .registry import BatchDims, Local, LocalJacobian, TapsCost, TermCost, rule


def terms_of(
    g: Geometry, k: int, out: str, wrt: str, other: str, tensor: Tensor, slot: int = 0
) -> list[Local]:
    """Return the terms of ∂out/∂wrt, each of the three sides by its name; ``tensor`` is that of the third."""
    return [
        Local(k, Block(*_value(sides[other], tensor), sides[out].maps, sides[wrt].maps), slot)
        for sides in offsets(g)
    ]


def of_images(g: Geometry, k: int, out: str, wrt: str, weight: Tensor, slot: int = 0) -> TermCost:
    """Return the terms of one image with respect to the other, and all taps at once."""
    seen = image_windows(g, out, weight)
    if seen is None:
        return TermCost(*sizes(g, out), lambda: terms_of(g, k, out, wrt, "weight", weight, slot))
    told = TapsCost(*sizes(g, out), lambda: [Local(k, tap, slot) for tap in taps(seen)])
    told.at_once = seen
    return told


def _value(side: ConvOperand, tensor: Tensor) -> tuple[Tensor, tuple[Label, ...]]:
    """Return a tensor at one offset of the kernel, without the labels that its maps do not name."""
    value = side.read(tensor)
    used = labels_of(side.maps)
    on = tuple([label for label in side.labels if label in used])
    return value.reshape([label.size for label in on]), on


@rule("ConvolutionBackward0", kind="convolution")
@rule("CudnnConvolutionBackward0", "MiopenConvolutionBackward0")
def convolution(node: Node) -> LocalJacobian:
    """Convolution: out[b,c,o] = Σ weight[c,i,k] x[b,i,at(o,k)] + bias[c], and its transpose.

    ∂out[b,c,o]/∂x[b′,i,at(o,k)] = δ[b,b′] weight[c,i,k]      one block for each k
    ∂out[b,c,o]/∂weight[c′,i,k]  = δ[c,c′] x[b,i,at(o,k)]     one block for all k, or one for each
    ∂out[b,c,o]/∂bias[c′]        = δ[c,c′]

    By calls the batch passes for x and the output channel for the weight.

    Example: a kernel of 3×3 on an image of 64×64: 9 numbers stand for 36,100 of 16.8 million entries.
    """
    transposed = node.saved("transposed")
    batch_dims: dict[int, BatchDims] = {}
    alternatives: dict[int, Callable[[int, Sequence[Block]], TermCost]] = {}
    terms = []
    if node.needs(0):
        batch_dims[0] = ((0, 0),)

        def wrt_x(*_: object) -> TermCost:
            weight = node.saved("weight")
            g = geometry(node, {"out": node.shape, "x": node.into(0).shape, "weight": weight.shape})
            return of_images(g, 0, "out", "x", weight)

        alternatives[0] = wrt_x
    if node.needs(1):
        batch_dims[1] = () if transposed and node.saved("groups") > 1 else ((1, int(transposed)),)

        def wrt_weight(_: int, blocks: Sequence[Block]) -> TermCost:
            x = node.saved("input")
            g = geometry(node, {"out": node.shape, "x": x.shape, "weight": node.into(1).shape})
            count, inner, entries = sizes(g, "out")
            summed = all(map(_is_summed, blocks))
            if not transposed and _at_once(g, blocks, summed):
                return TermCost(1, inner, entries, lambda: [Local(1, windows(g, x, summed))], whole=True)
            return TermCost(count, inner, entries, lambda: terms_of(g, 1, "out", "weight", "x", x))

        alternatives[1] = wrt_weight
    if node.needs(2):
        over = new_labels(node.shape)
        terms.append(Local(2, Block(1.0, (), tuple(map(bare, over)), (bare(over[1]),))))
    return LocalJacobian(terms, batch_dims, alternatives=alternatives)


def _is_summed(block: Block) -> bool:
    """Return whether an entry of the weight is a sum over positions of the image: all, or those of a table."""
    out = labels_of(block.out).keys()
    return not any(
        labels_of((map_,)).keys() <= out if type(map_) is Gather else labels_of((map_,)).keys() & out
        for map_ in block.wrt[2:]
    )


def _at_once(g: Geometry, blocks: Sequence[Block], summed: bool) -> bool:
    """Return whether the weight's block of all windows serves: small enough, and no zeros of a padding told as entries.

    What is ``summed`` over all positions of the image tells nothing of its margin.
    """
    shapes = g.shapes
    numbers = shapes["x"][0] * shapes["x"][1] * prod([dim.kernel * dim.coarse for dim in g.dims])
    held = sum([block.value.numel() for block in blocks if isinstance(block.value, Tensor)])
    padded = any(dim.margin for dim in g.dims)
    return windows_pay(numbers, held) and (summed or not padded)


@rule("ConvolutionBackwardBackward0")
def convolution_backward(node: Node) -> LocalJacobian:
    """The backward of a convolution: from g, the cotangent of out, those of x, weight and bias.

    gx[b,i,at(o,k)] = Σ weight[c,i,k] g[b,c,o]
    gw[c,i,k]       = Σ g[b,c,o] x[b,i,at(o,k)]
    gb[c]           = Σ g[b,c,o]

    By calls b passes from g to gx, c from g to gw and gb, and without groups i from weight to gx and from x to gw.
    """
    saved = {
        name: node.saved(key) for name, key in (("out", "grad_output"), ("x", "input"), ("weight", "weight"))
    }
    g = geometry(node, {name: tuple(tensor.shape) for name, tensor in saved.items()})
    names = ("out", "x", "weight")

    def wrt(k: int, slot: int, _: Sequence[Block]) -> TermCost:
        if slot == 2:
            over = new_labels(g.shapes["out"])
            bias = Local(0, Block(1.0, (), (bare(over[1]),), tuple(map(bare, over))), slot)
            return spelling([bias] if k == 0 else [])
        name, out = names[k], names[slot + 1]
        if out == name:
            return spelling([])
        (other,) = {*names} - {out, name}
        if other == "weight":
            return of_images(g, k, out, name, saved[other], slot)
        return TermCost(*sizes(g, out), lambda: terms_of(g, k, out, name, other, saved[other], slot))

    inputs = [k for k in range(3) if node.needs(k)]
    of_c, of_i = (
        (1, 0) if node.saved("transposed") else (0, 1)
    )  # the weight's dims of channels of out and of x
    apart = node.saved("groups") == 1
    batch_dims: list[dict[int, BatchDims]] = [
        {0: ((0, 0),), 2: ((1, of_i),) if apart else ()},
        {0: ((of_c, 1),) if apart or not of_c else (), 1: ((of_i, 1),) if apart else ()},
        {0: ((0, 1),)},
    ]
    first, *others = [{k: each.get(k, ()) for k in inputs} for each in batch_dims]
    return LocalJacobian((), first, dict(enumerate(others, 1)), {k: partial(wrt, k) for k in inputs})
