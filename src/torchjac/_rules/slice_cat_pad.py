"""Cutting tensors into pieces and putting pieces together: shifted identities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block, interned, zeroed
from .._blocks.block_views import swapped
from .._blocks.domain import at_most
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant
from .._capture.tape import Node
from .backward_overrides import BackwardFormula, register
from .einsum_notation import diagonal, new_labels, reindexing
from .registry import Local, rule
from .views import unravel


def shifted(size: int, at: int, step: int = 1) -> tuple[Affine, Affine]:
    """Return maps of a label over ``size`` entries: itself, and from ``at`` on with a step."""
    label = Label(size)
    return bare(label), Affine(at, ((label, step),))


@interned
def piece(shape: Sequence[int], dim: int, start: int, step: int = 1) -> Block:
    """Return a tensor of a shape that is part of another from ``start`` on along one dim; the others are equal."""
    maps = [bare(label) for label in new_labels(shape)]
    full = list(maps)
    maps[dim], full[dim] = shifted(shape[dim], start, step)
    return Block(1.0, (), tuple(maps), tuple(full))


@interned
def layer(shape: Sequence[int], dim: int, position: int) -> Block:
    """Return a tensor of a shape that stands at one position of a dim that another has more."""
    maps = tuple([bare(label) for label in new_labels(shape)])
    return Block(1.0, (), maps, (*maps[:dim], constant(position), *maps[dim:]))


@reindexing("SliceBackward0", transposes=("SliceBackwardBackward0",))
def slice_(node: Node, short: tuple[int, ...], full: tuple[int, ...]) -> Block:
    """Slice: out[i] = x[start + step·i]; or the input is set into zeros."""
    dim = node.saved("dim") % len(full)
    return piece(short, dim, slice_start(node, full[dim]), node.saved("step"))


def slice_start(node: Node, size: int) -> int:
    """Return the first position of a slice, counted from the front and inside the dim."""
    start = node.saved("start") or 0
    return min(max(start + size if start < 0 else start, 0), size)


@reindexing("SelectBackward0", transposes=("SelectBackwardBackward0",))
def select(node: Node, short: tuple[int, ...], full: tuple[int, ...]) -> Block:
    """Select: out = x[…, index, …]; or the input is set into zeros."""
    dim = node.saved("dim") % len(full)
    return layer(short, dim, node.saved("index") % full[dim])


@rule("UnbindBackward0", any_dtype=True)
def unbind(node: Node) -> list[Local]:
    """Unbind: output s is x[…, s, …]."""
    dim = node.saved("dim") % len(node.into(0).shape)
    return [Local(0, layer(meta.shape, dim, slot), slot) for slot, meta in enumerate(node.outputs)]


@rule(
    "SplitBackward0", "SplitWithSizesBackward0", "UnsafeSplitBackward0", "UnsafeSplitWithSizesBackward0",
    any_dtype=True,
)  # fmt: skip
def split(node: Node) -> list[Local]:
    """Split: each output is a slice that begins where the one before it ended."""
    dim = node.saved("dim") % len(node.into(0).shape)
    terms, at = [], 0
    for slot, meta in enumerate(node.outputs):
        terms.append(Local(0, piece(meta.shape, dim, at), slot))
        at += meta.shape[dim]
    return terms


@rule("CatBackward0", any_dtype=True)
def cat(node: Node) -> list[Local]:
    """Concatenate: input k fills the output from the end of input k − 1 on."""
    dim = node.saved("dim") % len(node.shape)
    terms = []
    for k, at in enumerate(cat_starts(node, dim)):
        if at is not None and len(node.into(k).shape) == len(node.shape):  # an empty (0,) joins any shape
            terms.append(Local(k, swapped(piece(node.into(k).shape, dim, at))))
    return terms


def cat_starts(node: Node, dim: int) -> list[int | None]:
    """Return where each needed input begins along the dim.

    The sizes of inputs that need no gradient are not on the graph, but a gradient is a narrowed view of the
    cotangent: on the meta device its offset tells where it begins, at no cost.
    """
    count = range(len(node.inputs))
    if all(node.needs(k) for k in count):
        sizes = [node.into(k).shape[dim] if len(node.into(k).shape) > dim else 0 for k in count]
        return [sum(sizes[:k]) for k in count]
    results = node.vjp(torch.empty(node.shape, dtype=node.outputs[0].dtype, device="meta"))
    results = results if isinstance(results, tuple) else (results,)
    step = max(prod(node.shape[dim + 1 :]), 1)
    return [results[k].storage_offset() // step if node.needs(k) else None for k in count]


@rule("StackBackward0", any_dtype=True)
def stack(node: Node) -> list[Local]:
    """Stack: input k fills the output at position k of the new dim."""
    dim = node.saved("dim") % len(node.shape)
    return [
        Local(k, swapped(layer(node.into(k).shape, dim, k))) for k in range(len(node.inputs)) if node.needs(k)
    ]


@reindexing("NarrowCopyBackward0")
def narrow_copy(node: Node, short: tuple[int, ...], full: tuple[int, ...]) -> Block:
    """Narrow: out[i] = x[start + i]."""
    dim = node.saved("dim") % len(full)
    return piece(short, dim, node.saved("start") % max(full[dim], 1))


@rule("BlockDiagBackward0", any_dtype=True)
def block_diag(node: Node) -> list[Local]:
    """Block diagonal: input k stands where the rows and columns of those before it end.

    A gradient is a narrowed view of the cotangent: on the meta device its offset tells where it begins.
    """
    whole = torch.empty(node.shape, dtype=node.outputs[0].dtype, device="meta")
    results = node.vjp(whole)
    terms = []
    for k, result in enumerate(results if isinstance(results, tuple) else (results,)):
        if node.needs(k):
            shape = node.into(k).shape
            at = divmod(result.storage_offset(), max(node.shape[1], 1))
            over = new_labels((1,) * (2 - len(shape)) + shape)
            out = tuple(Affine(start, ((label, 1),)) for start, label in zip(at, over, strict=True))
            terms.append(Local(k, Block(1.0, (), out, tuple(map(bare, over[2 - len(shape) :])))))
    return terms


@reindexing("TraceBackward0")
def trace(node: Node, _: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Trace: out = Σᵢ x[i, i]."""
    return _trace(min(in_shape))


@interned
def _trace(size: int) -> Block:
    label = Label(size)
    return Block(1.0, (), (), (bare(label), bare(label)))


@rule("RollBackward0", any_dtype=True)
def roll(node: Node) -> list[Local]:
    """Roll: out[(i + shift) mod n] = x[i]: along each dim two shifted identities."""
    shape, shifts, dims = node.shape, node.saved("shifts"), node.saved("dims")
    if not dims and len(shape) == 1:
        dims = (0,)
    if not dims:  # the flattened tensor is rolled
        over = new_labels(shape)
        at = torch.arange(torch.Size(shape).numel(), device=node.outputs[0].device).view(shape)
        return [Local(0, Block(1.0, (), tuple(map(bare, over)), unravel(at.roll(shifts), over, shape)))]
    total: dict[int, int] = {}
    for shift, dim in zip(shifts, dims, strict=True):
        total[dim % len(shape)] = total.get(dim % len(shape), 0) + shift
    # A dim that is rolled is two pieces, which change places: (size, its position in x, that in out).
    choices = [_rolled(size, total.get(dim, 0) % size) for dim, size in enumerate(shape)]
    return [Local(0, window(*zip(*pieces, strict=True))) for pieces in product(*choices)]


def _roll_of_a_number(node: Node, lead: object, rows: Tensor) -> list[Tensor | None] | None:
    return None if node.shape else [rows]


# PyTorch's own is wrong on a batch: see `vjp_support.engine_takes_batches`.
register(["RollBackward0"], BackwardFormula(_roll_of_a_number, fails=lambda node: not node.shape))


def _rolled(size: int, shift: int) -> list[tuple[int, int, int]]:
    whole = (size, 0, 0)
    return [whole] if shift == 0 else [(size - shift, 0, shift), (shift, size - shift, 0)]


@interned
def window(sizes: Sequence[int] = (), in_starts: Sequence[int] = (), out_starts: Sequence[int] = ()) -> Block:
    """Return a window of a tensor that stands somewhere in another."""
    over = new_labels(sizes)
    out, wrt = (
        tuple([Affine(start, ((label, 1),)) for start, label in zip(starts, over, strict=True)])
        for starts in (out_starts, in_starts)
    )
    return Block(1.0, (), out, wrt)


@reindexing("ConstantPadNdBackward0")
def constant_pad_nd(node: Node, _: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """Pad with a constant: out[i + before] = x[i]; a negative pad cuts."""
    pad, kept = node.saved("pad"), []
    for dim, size in enumerate(shape):
        last = 2 * (len(shape) - 1 - dim)
        before, after = (pad[last], pad[last + 1]) if last < len(pad) else (0, 0)
        cut = max(-before, 0)
        kept.append((max(size - cut - max(-after, 0), 0), cut, max(before, 0)))
    return window(*zip(*kept, strict=True))


MIRROR_PADS = [f"{how}Pad{n}DBackward" for how in ("Reflection", "Replication") for n in (1, 2, 3)]


@reindexing(*[f"{name}0" for name in MIRROR_PADS], transposes=[f"{name}Backward0" for name in MIRROR_PADS])
def mirror_pad(node: Node, padded: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """Pad by reflection or replication: out[i] = x[at(i − before)], a table for each padded dim.

    The transpose adds padded entries to those they mirror.
    """
    padding, over = node.saved("padding"), new_labels(padded)
    wrt: list[Map] = []
    for dim, (label, size) in enumerate(zip(over, shape, strict=True)):
        last = 2 * (len(shape) - 1 - dim)
        if last >= len(padding):
            wrt.append(bare(label))
            continue
        at = torch.arange(label.size, device=node.outputs[0].device) - padding[last]
        if node.name.startswith("Reflection"):
            at = at.abs()
            at = torch.where(at >= size, 2 * (size - 1) - at, at)
        wrt.append(Gather(at.clamp(0, max(size - 1, 0)), (label,)))
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt))


@reindexing("TrilBackward0", "TriuBackward0", selects=True)
def triangle(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Lower or upper triangle: a diagonal of ones, and of zeros outside of the triangle."""
    meta, offset = node.outputs[0], node.saved("diagonal")
    lower = node.name.startswith("Tril")
    mask = torch.ones(meta.shape[-2:], dtype=meta.dtype, device=meta.device)
    mask = (torch.tril if lower else torch.triu)(mask, offset)
    _, over, out, wrt = diagonal(shape, in_shape)
    row, column = Affine(offset, ((over[-2], 1),)), bare(over[-1])
    domain = at_most(column, row) if lower else at_most(row, column)
    return zeroed(Block(mask, over[-2:], out, wrt), domain=domain)


@rule("LuUnpackBackward0", any_dtype=True)
def lu_unpack(node: Node) -> list[Local]:
    """The factors of LU packed in one matrix x: L = below(x) + 1 of shape (m, k), U = above(x) of shape (k, n)."""
    terms = []
    for slot, meta in enumerate(node.outputs):
        over = new_labels(meta.shape)
        out, wrt = tuple(map(bare, over)), tuple(map(bare, over))  # not one for both: the input may be larger
        full = torch.ones(meta.shape[-2:], dtype=meta.dtype, device=meta.device)
        mask = full.tril(-1) if slot == 0 else full.triu()
        terms.append(Local(0, Block(mask, over[-2:], out, wrt), slot, selects=True))
    return terms
