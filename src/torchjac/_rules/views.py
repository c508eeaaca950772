"""Views of a whole tensor: every output entry is one input entry, and every dim keeps a law."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from .._blocks.block import Block, interned
from .._blocks.block_views import swapped
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant
from .._capture.tape import Node
from .einsum_notation import diagonal as diagonal_block
from .einsum_notation import new_labels
from .registry import Local, rule


@rule(
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "ReshapeCopyBackward0",
    "SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2", "SqueezeBackward3", "SqueezeBackward4",
    "SqueezeBackward5", "UnsqueezeBackward0", "UnsqueezeBackward1",
    any_dtype=True,
)  # fmt: skip
def view(node: Node) -> list[Local]:
    """Reshape: out.flatten() = x.flatten().

    Where dims split or join cleanly both sides are affine in common labels: for (p, q) ← (p·q,) the input
    stands at q·i + j. Otherwise the input's position comes from an index tensor. No numbers either way.
    """
    shape, in_shape = node.shape, node.into(0).shape
    splits = not any(above % cut for above, cut in pairwise(_cuts(shape, in_shape)))
    if splits:
        return [Local(0, _reshape(shape, in_shape))]
    return [Local(0, Block(1.0, (), *_table_maps(shape, in_shape, node.outputs[0].device)))]


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


def _table_maps(
    out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    over = new_labels(out_shape)
    at = torch.arange(_suffix_products(out_shape)[0], device=device).view(tuple(out_shape))
    return tuple(map(bare, over)), unravel(at, over, in_shape)


def unravel(at: torch.Tensor, over: tuple[Label, ...], shape: Sequence[int]) -> tuple[Map, ...]:
    """Return the maps of positions in a flattened tensor, one for each of its dims."""
    maps: list[Map] = []
    for size in reversed(shape):
        maps.append(Gather(at % max(size, 1), over) if size != 1 else constant(0))
        at = at // max(size, 1)
    return tuple(reversed(maps))


@rule("PermuteBackward0", any_dtype=True)
def permute(node: Node) -> list[Local]:
    """Permute: out[i_{dims[0]}, …] = x[i₀, i₁, …]."""
    return [Local(0, _reorder(node.shape, tuple(node.saved("dims"))))]


@rule("TransposeBackward0", "TransposeBackward1", any_dtype=True)
def transpose(node: Node) -> list[Local]:
    """Transpose: two dims change places."""
    order = list(range(len(node.shape)))
    first, second = node.saved("dim0"), node.saved("dim1")
    if order:
        order[first], order[second] = order[second], order[first]
    return [Local(0, _reorder(node.shape, tuple(order)))]


@rule("TBackward0", "TBackward1", any_dtype=True)
def t(node: Node) -> list[Local]:
    """Matrix transpose; a vector stays as it is."""
    return [Local(0, _reorder(node.shape, tuple(range(len(node.shape))[::-1])))]


@interned
def _reorder(shape: tuple[int, ...], order: tuple[int, ...]) -> Block:
    out = tuple(map(bare, new_labels(shape)))
    wrt: list[Map] = list(out)
    for map_, dim in zip(out, order, strict=True):
        wrt[dim] = map_
    return Block(1.0, (), out, tuple(wrt))


@rule("ExpandBackward0", any_dtype=True)
def expand(node: Node) -> list[Local]:
    """Expand: dims of size 1 and new dims repeat the input."""
    return [Local(0, diagonal_block(node.shape, node.into(0).shape)._replace(on=()))]


@rule("RepeatBackward0", any_dtype=True)
def repeat(node: Node) -> list[Local]:
    """Repeat: out[n·r + i] = x[i] along every dim, for r in range(repeats)."""
    return [Local(0, _repeated(node.into(0).shape, tuple(node.saved("repeats"))))]


@interned
def _repeated(shape: tuple[int, ...], repeats: tuple[int, ...]) -> Block:
    over = new_labels(shape)
    out: list[Map] = [bare(Label(times)) for times in repeats[: len(repeats) - len(shape)]]
    for label, times in zip(over, repeats[len(repeats) - len(shape) :], strict=True):
        terms = ((Label(times), label.size),) if times > 1 and label.size else ()
        out.append(Affine(0, (*terms, (label, 1))))
    return Block(1.0, (), tuple(out), tuple(map(bare, over)))


@rule("FlipBackward0", any_dtype=True)
def flip(node: Node) -> list[Local]:
    """Flip: out[i] = x[n − 1 − i] along the dims named."""
    rank = len(node.shape)
    return [Local(0, _flipped(node.shape, frozenset(dim % rank for dim in node.saved("dims") if rank)))]


@interned
def _flipped(shape: tuple[int, ...], dims: frozenset[int]) -> Block:
    over = new_labels(shape)
    wrt = tuple(
        Affine(label.size - 1, ((label, -1),)) if dim in dims else bare(label)
        for dim, label in enumerate(over)
    )
    return Block(1.0, (), tuple(map(bare, over)), wrt)


@rule("Rot90Backward0", any_dtype=True)
def rot90(node: Node) -> list[Local]:
    """Rotate k quarter turns in the plane of two dims: a transpose, a flip, or both."""
    over = new_labels(node.shape)
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
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), tuple(wrt)))]


@rule("DiagonalBackward0", any_dtype=True)
def diagonal(node: Node) -> list[Local]:
    """Diagonal: out[…, k] = x[k + max(−offset, 0), k + max(offset, 0)]."""
    return [Local(0, on_diagonal(node, node.shape, node.into(0).shape))]


@rule("DiagonalBackwardBackward0", any_dtype=True)
def diagonal_backward(node: Node) -> list[Local]:
    """The transpose of `diagonal`: the input stands on a diagonal of zeros."""
    return [Local(0, swapped(on_diagonal(node, node.into(0).shape, node.shape)))]


def on_diagonal(node: Node, short: tuple[int, ...], full: tuple[int, ...]) -> Block:
    """Return a tensor that stands on a diagonal of another."""
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


@rule("DiagEmbedBackward0", any_dtype=True)
def diag_embed(node: Node) -> list[Local]:
    """Diagonal embedding: out[k + max(−offset, 0), k + max(offset, 0)] = x[…, k]."""
    return [Local(0, swapped(on_diagonal(node, node.into(0).shape, node.shape)))]


@rule("UnfoldBackward0", any_dtype=True)
def unfold(node: Node) -> list[Local]:
    """Sliding windows: out[…, w, …, k] = x[…, step·w + k, …]."""
    return [Local(0, _windows(node, node.shape, node.into(0).shape, "dimension"))]


@rule("UnfoldBackwardBackward0", any_dtype=True)
def unfold_backward(node: Node) -> list[Local]:
    """The transpose of `unfold`: windows are added where they overlap."""
    return [Local(0, swapped(_windows(node, node.into(0).shape, node.shape, "dim")))]


def _windows(node: Node, windows: tuple[int, ...], whole: tuple[int, ...], dim_name: str) -> Block:
    dim = node.saved(dim_name) % len(whole) if whole else None
    return _unfolded(windows, dim, node.saved("step"))


@interned
def _unfolded(windows: tuple[int, ...], dim: int | None, step: int) -> Block:
    over = new_labels(windows)
    if dim is None:
        return Block(1.0, (), tuple(map(bare, over)), ())
    wrt = [bare(label) for label in over[:-1]]
    wrt[dim] = Affine(0, ((over[dim], step), (over[-1], 1)))
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))
