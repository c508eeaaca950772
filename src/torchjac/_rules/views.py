"""Views of a whole tensor: every output entry is one input entry, and every dim keeps a law."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch

from .._blocks.block import Block, interned
from .._blocks.dense_views import unravelled
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant
from .._capture.tape import Node
from .einsum_notation import diagonal as diagonal_block
from .einsum_notation import new_labels, reindexing


@reindexing(
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ReshapeCopyBackward0",
    "SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2", "SqueezeBackward3", "SqueezeBackward4",
    "SqueezeBackward5", "UnsqueezeBackward0", "UnsqueezeBackward1",
)  # fmt: skip
def view(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Reshape: out.flatten() = x.flatten().

    Where dims split or join cleanly both sides are affine in common labels: for (p, q) ← (p·q,) the input
    stands at q·i + j. Otherwise the input's position comes from an index tensor. No numbers either way.
    """
    if not any(above % cut for above, cut in pairwise(_cuts(shape, in_shape))):
        return _reshape(shape, in_shape)
    over = new_labels(shape)
    at = torch.arange(prod(shape), device=node.outputs[0].device).view(shape)
    return Block(1.0, (), tuple(map(bare, over)), unravel(at, over, in_shape))


def _cuts(*shapes: Sequence[int]) -> list[int]:
    """The strides of the dims of several shapes, falling: where one divides that before, all shapes share digits."""
    return sorted({stride for shape in shapes for stride in _suffix_products(shape)}, reverse=True)


@interned
def _reshape(out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Return index maps under which a tensor and its reshape name the same entry, where dims split or join cleanly."""
    labels = [(cut, Label(above // cut)) for above, cut in pairwise(_cuts(out_shape, in_shape))]
    out, wrt = (tuple(_dims(shape, _suffix_products(shape), labels)) for shape in (out_shape, in_shape))
    return Block(1.0, (), out, wrt)


def _suffix_products(shape: Sequence[int]) -> list[int]:
    products = [1]
    for size in reversed(shape):
        products.append(products[-1] * size)
    return products[::-1]


def _dims(shape: Sequence[int], below: list[int], labels: list[tuple[int, Label]]) -> list[Map]:
    """Return each dim is affine in the labels whose stride lies between its own stride and the next."""
    return [
        Affine(0, tuple((label, cut // step) for cut, label in labels if step <= cut < step * size))
        for size, step in zip(shape, below[1:], strict=True)
    ]


def unravel(at: torch.Tensor, over: tuple[Label, ...], shape: Sequence[int]) -> tuple[Map, ...]:
    """Return the maps of positions in a flattened tensor, one for each of its dims."""
    found = zip(unravelled(at, shape), shape, strict=True)
    return tuple([Gather(part, over) if size != 1 else constant(0) for part, size in found])


@reindexing("PermuteBackward0")
def permute(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Permute: out[i_{dims[0]}, …] = x[i₀, i₁, …]."""
    return _reorder(shape, tuple(node.saved("dims")))


@reindexing("TransposeBackward0", "TransposeBackward1")
def transpose(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Transpose: two dims change places."""
    order = list(range(len(shape)))
    first, second = node.saved("dim0"), node.saved("dim1")
    if order:
        order[first], order[second] = order[second], order[first]
    return _reorder(shape, tuple(order))


@reindexing("TBackward0", "TBackward1")
def t(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Matrix transpose; a vector stays as it is."""
    return _reorder(shape, tuple(range(len(shape))[::-1]))


@interned
def _reorder(shape: tuple[int, ...], order: tuple[int, ...]) -> Block:
    out = tuple(map(bare, new_labels(shape)))
    wrt: list[Map] = list(out)
    for map_, dim in zip(out, order, strict=True):
        wrt[dim] = map_
    return Block(1.0, (), out, tuple(wrt))


@reindexing("ExpandBackward0")
def expand(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Expand: dims of size 1 and new dims repeat the input."""
    return diagonal_block(shape, in_shape)._replace(on=())


@reindexing("RepeatBackward0")
def repeat(node: Node, _: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Repeat: out[n·r + i] = x[i] along every dim, for r in range(repeats)."""
    return _repeated(in_shape, tuple(node.saved("repeats")))


@interned
def _repeated(shape: tuple[int, ...], repeats: tuple[int, ...]) -> Block:
    over = new_labels(shape)
    out: list[Map] = [bare(Label(times)) for times in repeats[: len(repeats) - len(shape)]]
    for label, times in zip(over, repeats[len(repeats) - len(shape) :], strict=True):
        terms = ((Label(times), label.size),) if times > 1 and label.size else ()
        out.append(Affine(0, (*terms, (label, 1))))
    return Block(1.0, (), tuple(out), tuple(map(bare, over)))


@reindexing("FlipBackward0")
def flip(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Flip: out[i] = x[n − 1 − i] along the dims named."""
    return _flipped(shape, frozenset(dim % len(shape) for dim in node.saved("dims") if shape))


@interned
def _flipped(shape: tuple[int, ...], dims: frozenset[int]) -> Block:
    over = new_labels(shape)
    wrt = tuple(
        Affine(label.size - 1, ((label, -1),)) if dim in dims else bare(label)
        for dim, label in enumerate(over)
    )
    return Block(1.0, (), tuple(map(bare, over)), wrt)


@reindexing("Rot90Backward0")
def rot90(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Rotate k quarter turns in the plane of two dims: a transpose, a flip, or both."""
    over = new_labels(shape)
    first, second = (dim % len(over) for dim in node.saved("dims"))
    turns = node.saved("k") % 4
    wrt = [bare(label) for label in over]
    back = {dim: Affine(over[dim].size - 1, ((over[dim], -1),)) for dim in (first, second)}
    if turns == 2:
        wrt[first], wrt[second] = back[first], back[second]
    elif turns == 1:  # out[i, j] = x[j, n − 1 − i]
        wrt[first], wrt[second] = bare(over[second]), back[first]
    elif turns == 3:  # out[i, j] = x[n − 1 − j, i]
        wrt[first], wrt[second] = back[second], bare(over[first])
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))


@reindexing("DiagonalBackward0", transposes=("DiagonalBackwardBackward0", "DiagEmbedBackward0"))
def diagonal(node: Node, short: tuple[int, ...], full: tuple[int, ...]) -> Block:
    """Diagonal: out[…, k] = x[k + max(−offset, 0), k + max(offset, 0)]; or the input stands on a diagonal of zeros."""
    first, second = node.saved("dim1") % len(full), node.saved("dim2") % len(full)
    return _on_diagonal(short, len(full), first, second, node.saved("offset"))


@interned
def _on_diagonal(short: tuple[int, ...], rank: int, first: int, second: int, offset: int) -> Block:
    over = new_labels(short)
    rest = iter(over[:-1])
    wrt = tuple(
        Affine(max(-offset, 0), ((over[-1], 1),)) if dim == first
        else Affine(max(offset, 0), ((over[-1], 1),)) if dim == second
        else bare(next(rest))
        for dim in range(rank)
    )  # fmt: skip
    return Block(1.0, (), tuple(map(bare, over)), wrt)


@reindexing("UnfoldBackward0", transposes=("UnfoldBackwardBackward0",))
def unfold(node: Node, windows: tuple[int, ...], whole: tuple[int, ...]) -> Block:
    """Sliding windows: out[…, w, …, k] = x[…, step·w + k, …]; or windows are added where they overlap."""
    name = "dim" if node.name == "UnfoldBackwardBackward0" else "dimension"
    dim = node.saved(name) % len(whole) if whole else None
    return _unfolded(windows, dim, node.saved("step"))


@interned
def _unfolded(windows: tuple[int, ...], dim: int | None, step: int) -> Block:
    over = new_labels(windows)
    if dim is None:
        return Block(1.0, (), tuple(map(bare, over)), ())
    wrt = [bare(label) for label in over[:-1]]
    wrt[dim] = Affine(0, ((over[dim], step), (over[-1], 1)))
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))
