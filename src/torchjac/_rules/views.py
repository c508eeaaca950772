"""Views of a whole tensor: every output entry is one input entry, and every dim keeps a law."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from .._blocks.block import Block
from .._blocks.maps import Affine, Gather, Label, Map, bare
from .._capture.tape import Node
from .registry import Local, rule
from .spell import broadcast, new_labels


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
    out, wrt = reshape_maps(node.shape, node.into(0).shape, node.outputs[0].device)
    return [Local(0, Block(1.0, (), out, wrt))]


def reshape_maps(
    out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Index maps under which a tensor and its reshape name the same entry."""
    if 0 in in_shape:
        return tuple(map(bare, new_labels(out_shape))), (Affine(0, ()),) * len(in_shape)
    below = _suffix_products(out_shape), _suffix_products(in_shape)
    cuts = sorted({*below[0], *below[1]}, reverse=True)
    if any(above % cut for above, cut in pairwise(cuts)):
        return _table_maps(out_shape, in_shape, device)
    labels = [(cut, Label(above // cut)) for above, cut in pairwise(cuts)]
    return tuple(_dims(out_shape, below[0], labels)), tuple(_dims(in_shape, below[1], labels))


def _suffix_products(shape: Sequence[int]) -> list[int]:
    products = [1]
    for size in reversed(shape):
        products.append(products[-1] * size)
    return products[::-1]


def _dims(shape: Sequence[int], below: list[int], labels: list[tuple[int, Label]]) -> list[Map]:
    """Each dim is affine in the labels whose stride lies between its own stride and the next."""
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
    """The maps of positions in a flattened tensor, one for each of its dims."""
    maps: list[Map] = []
    for size in reversed(shape):
        maps.append(Gather(at % max(size, 1), over))
        at = at // max(size, 1)
    return tuple(reversed(maps))


@rule("PermuteBackward0", any_dtype=True)
def permute(node: Node) -> list[Local]:
    """Permute: out[i_{dims[0]}, …] = x[i₀, i₁, …]."""
    return [_reorder(node, node.saved("dims"))]


@rule("TransposeBackward0", "TransposeBackward1", any_dtype=True)
def transpose(node: Node) -> list[Local]:
    """Transpose: two dims change places."""
    order = list(range(len(node.shape)))
    first, second = node.saved("dim0"), node.saved("dim1")
    if order:
        order[first], order[second] = order[second], order[first]
    return [_reorder(node, order)]


@rule("TBackward0", "TBackward1", any_dtype=True)
def t(node: Node) -> list[Local]:
    """Matrix transpose; a vector stays as it is."""
    return [_reorder(node, range(len(node.shape))[::-1])]


def _reorder(node: Node, order: Sequence[int]) -> Local:
    over = new_labels(node.shape)
    wrt: list[Map | None] = [None] * len(over)
    for label, dim in zip(over, order, strict=True):
        wrt[dim] = bare(label)
    return Local(0, Block(1.0, (), tuple(map(bare, over)), tuple(wrt)))


@rule("ExpandBackward0", any_dtype=True)
def expand(node: Node) -> list[Local]:
    """Expand: dims of size 1 and new dims repeat the input."""
    over = new_labels(node.shape)
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), broadcast(over, node.into(0).shape)))]


@rule("RepeatBackward0", any_dtype=True)
def repeat(node: Node) -> list[Local]:
    """Repeat: out[n·r + i] = x[i] along every dim, for r in range(repeats)."""
    shape, repeats = node.into(0).shape, node.saved("repeats")
    over = new_labels(shape)
    out: list[Map] = [bare(Label(times)) for times in repeats[: len(repeats) - len(shape)]]
    for label, times in zip(over, repeats[len(repeats) - len(shape) :], strict=True):
        terms = ((Label(times), label.size),) if times > 1 and label.size else ()
        out.append(Affine(0, (*terms, (label, 1))))
    if 0 in node.shape:
        return []
    return [Local(0, Block(1.0, (), tuple(out), tuple(map(bare, over))))]


@rule("FlipBackward0", any_dtype=True)
def flip(node: Node) -> list[Local]:
    """Flip: out[i] = x[n − 1 − i] along the dims named."""
    over = new_labels(node.shape)
    dims = {dim % len(over) for dim in node.saved("dims")} if over else set()
    wrt = tuple(
        Affine(label.size - 1, ((label, -1),)) if dim in dims else bare(label)
        for dim, label in enumerate(over)
    )
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), wrt))]


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
    block = on_diagonal(node, node.into(0).shape, node.shape)
    return [Local(0, block._replace(out=block.wrt, wrt=block.out))]


def on_diagonal(node: Node, short: Sequence[int], full: Sequence[int]) -> Block:
    over = new_labels(short)
    first, second = node.saved("dim1") % len(full), node.saved("dim2") % len(full)
    offset = node.saved("offset")
    rest = iter(over[:-1])
    wrt = tuple(
        Affine(max(-offset, 0), ((over[-1], 1),)) if dim == first
        else Affine(max(offset, 0), ((over[-1], 1),)) if dim == second
        else bare(next(rest))
        for dim in range(len(full))
    )  # fmt: skip
    return Block(1.0, (), tuple(map(bare, over)), wrt)


@rule("DiagEmbedBackward0", any_dtype=True)
def diag_embed(node: Node) -> list[Local]:
    """Diagonal embedding: out[k + max(−offset, 0), k + max(offset, 0)] = x[…, k]."""
    block = on_diagonal(node, node.into(0).shape, node.shape)
    return [Local(0, block._replace(out=block.wrt, wrt=block.out))]


@rule("UnfoldBackward0", any_dtype=True)
def unfold(node: Node) -> list[Local]:
    """Sliding windows: out[…, w, …, k] = x[…, step·w + k, …]."""
    return [Local(0, _windows(node, node.shape, node.into(0).shape, "dimension"))]


@rule("UnfoldBackwardBackward0", any_dtype=True)
def unfold_backward(node: Node) -> list[Local]:
    """The transpose of `unfold`: windows are added where they overlap."""
    block = _windows(node, node.into(0).shape, node.shape, "dim")
    return [Local(0, block._replace(out=block.wrt, wrt=block.out))]


def _windows(node: Node, windows: Sequence[int], whole: Sequence[int], dim_name: str) -> Block:
    over = new_labels(windows)
    if not whole:
        return Block(1.0, (), tuple(map(bare, over)), ())
    dim = node.saved(dim_name) % len(whole)
    wrt = [bare(label) for label in over[:-1]]
    wrt[dim] = Affine(0, ((over[dim], node.saved("step")), (over[-1], 1)))
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))
