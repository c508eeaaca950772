"""Writing into part of a tensor: what was there keeps its entries outside, the source stands inside."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block, identity
from .._blocks.block_views import swapped
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant, positions
from .._capture.tape import Node
from .einsum_notation import broadcast, new_labels, reindexing, spread
from .gather import along, index_maps, masked_maps
from .registry import Local, rule
from .slice_cat_pad import slice_start, window
from .strided import Slices, around
from .views import diagonal, unravel


def _source(node: Node, picked: Sequence[Map], whole: Sequence[Map]) -> list[Local]:
    """Return the source of a write, which may broadcast over the part written."""
    if not node.needs(1):
        return []
    shape = node.into(1).shape
    lead = len(picked) - len(shape)
    wrt = tuple(
        map_ if size != 1 or not map_.labels or map_.labels[0].size == 1 else constant(0)
        for map_, size in zip(picked[lead:], shape, strict=True)
    )
    return [Local(1, Block(1.0, (), tuple(whole), wrt))]


def kept(node: Node, hole: Tensor) -> list[Local]:
    """Return the tensor written into: a diagonal of ones with zeros where ``hole`` (broadcasting) is true."""
    if not node.needs(0):
        return []
    over = new_labels(node.shape)
    value, on = spread((~hole).to(node.outputs[0].dtype), over)
    wrt = broadcast(over, node.into(0).shape)
    return [Local(0, Block(value, on, tuple(map(bare, over)), wrt), selects=True)]


def _all_kept(node: Node) -> list[Local]:
    return [Local(0, identity(node.shape))] if node.needs(0) else []


def _outside(node: Node, dim: int, start: int, step: int, count: int) -> list[Local]:
    """Return the tensor written into, where a slice along one dim was overwritten: what lies before and after."""
    if step != 1 and count > 1:
        hole = torch.zeros(node.shape[dim], dtype=torch.bool, device=node.outputs[0].device)
        hole[start : start + step * count : step] = True
        return kept(node, hole.view([-1 if d == dim else 1 for d in range(len(node.shape))]))
    box = [slice(0, size) for size in node.shape]
    box[dim] = slice(start, start + count)
    return outside(node, tuple(box))


def outside(node: Node, hole: Slices) -> list[Local]:
    """Return the tensor written into, outside of a box."""
    terms = []
    for box in around(node.shape, hole) if node.needs(0) else ():
        starts = tuple([part.start for part in box])
        terms.append(Local(0, window(tuple([part.stop - part.start for part in box]), starts, starts)))
    return terms


@rule("SliceScatterBackward0", any_dtype=True)
def slice_scatter(node: Node) -> list[Local]:
    """Write a slice: out[start + step·i] = source[i]."""
    dim = node.saved("dim") % len(node.shape)
    size, step = node.shape[dim], node.saved("step")
    start, end = slice_start(node, size), node.saved("end")
    end = size if end is None else min(max(end + size if end < 0 else end, start), size)
    count = -(-(end - start) // step)
    label = Label(count)
    whole = [bare(other) for other in new_labels(node.shape)]
    picked = list(whole)
    picked[dim], whole[dim] = bare(label), Affine(start, ((label, step),))
    return _outside(node, dim, start, step, count) + _source(node, picked, whole)


@rule("SelectScatterBackward0", any_dtype=True)
def select_scatter(node: Node) -> list[Local]:
    """Write one position of a dim: out[…, index, …] = source."""
    dim = node.saved("dim") % len(node.shape)
    at = node.saved("index") % node.shape[dim]
    picked = [bare(label) for d, label in enumerate(new_labels(node.shape)) if d != dim]
    whole = (*picked[:dim], constant(at), *picked[dim:])
    return _outside(node, dim, at, 1, 1) + _source(node, picked, whole)


@rule("IndexPutBackward0", "IndexPutImplBackward0", "UnsafeIndexPutBackward0", any_dtype=True)
def index_put(node: Node) -> list[Local]:
    """Write or add at positions held in tensors: out[index₀[l], index₁[l], …] = or += source[l]."""
    picked, whole = index_maps(node.saved("indices"), node.shape)
    source = _source(node, picked, whole)
    if node.saved("accumulate"):
        return _all_kept(node) + source
    return kept(node, _written(node, whole)) + source


def _written(node: Node, whole: Sequence[Map]) -> Tensor:
    """Return which entries were written, as a mask over the index tensors' dims."""
    meta = node.outputs[0]
    tables = [dim for dim, map_ in enumerate(whole) if type(map_) is Gather]
    shape = [size if dim in tables else 1 for dim, size in enumerate(meta.shape)]
    hole = torch.zeros(shape, dtype=torch.bool, device=meta.device)
    over = tuple(dict.fromkeys(label for dim in tables for label in whole[dim].labels))
    index = tuple(
        positions(whole[dim], over, meta.device)
        if dim in tables
        else torch.zeros((), dtype=torch.int64, device=meta.device)
        for dim in range(len(shape))
    )
    return hole.index_put(index, torch.ones((), dtype=torch.bool, device=meta.device))


@rule("IndexAddBackward0", any_dtype=True)
def index_add(node: Node) -> list[Local] | None:
    """Add at positions along a dim: out[…, index[i], …] += α source[…, i, …]."""
    alpha = node.saved("alpha") if node.needs(1) else 1
    if isinstance(alpha, complex):
        return None
    terms = _all_kept(node)
    if node.needs(1):
        picked, whole = indexed(node, node.into(1).shape)
        terms.append(Local(1, Block(float(alpha), (), whole, picked)))
    return terms


@rule("IndexFillBackward0", "IndexFillBackward1", any_dtype=True)
def index_fill(node: Node) -> list[Local]:
    """Fill positions along a dim with a number or a 0-dim tensor."""
    return _filled(node, _slots(node))


@rule("MaskedFillBackward1", any_dtype=True)
def masked_fill(node: Node) -> list[Local]:
    """Fill where a mask is true with a 0-dim tensor: ∂out[i]/∂value = mask[i]."""
    return _filled(node, node.saved("mask"))


def _filled(node: Node, hole: Tensor) -> list[Local]:
    terms = kept(node, hole)
    if node.needs(1):
        over = new_labels(node.shape)
        value, on = spread(hole.to(node.outputs[0].dtype), over)
        terms.append(Local(1, Block(value, on, tuple(map(bare, over)), ())))
    return terms


def _slots(node: Node) -> Tensor:
    """Return which positions along the dim the index names, as a mask that broadcasts over the output."""
    rank, index = len(node.shape), node.saved("index").reshape(-1)
    dim = node.saved("dim") % max(rank, 1)
    hole = torch.zeros(node.shape[dim] if rank else 1, dtype=torch.bool, device=index.device)
    return hole.index_fill(0, index, True).view([-1 if d == dim else 1 for d in range(rank)])


@rule("IndexCopyBackward0", any_dtype=True)
def index_copy(node: Node) -> list[Local]:
    """Write at positions along a dim: out[…, index[i], …] = source[…, i, …]."""
    terms = kept(node, _slots(node))
    if node.needs(1):
        picked, whole = indexed(node, node.into(1).shape)
        terms.append(Local(1, Block(1.0, (), whole, picked)))
    return terms


def indexed(node: Node, shape: Sequence[int]) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of a source of a shape, and of what it is written into at positions along a dim."""
    over = new_labels(shape)
    picked = tuple(map(bare, over))
    if not node.shape:
        return picked, ()
    if not shape:  # one position of a vector
        return picked, (Gather(node.saved("index").reshape(()), ()),)
    whole: list[Map] = list(picked)
    dim = node.saved("dim") % len(node.shape)
    whole[dim] = Gather(node.saved("index").reshape(-1), (over[dim],))
    return picked, tuple(whole)


@rule("ScatterBackward0", "ScatterBackward1", any_dtype=True)
def scatter(node: Node) -> list[Local]:
    """Scatter: out[index[i, j], j] = source[i, j], the rest as it was."""
    index = node.saved("index")
    if index.numel() == 0:
        return _all_kept(node)
    hole = torch.zeros(node.shape, dtype=torch.bool, device=index.device)
    return kept(node, hole.scatter(node.saved("dim"), index, True)) + scattered(node, index)


@rule("ScatterAddBackward0", any_dtype=True)
def scatter_add(node: Node) -> list[Local]:
    """Scatter-add: out[index[i, j], j] += source[i, j]."""
    return _all_kept(node) + (scattered(node, node.saved("index")) if node.needs(1) else [])


def scattered(node: Node, index: Tensor) -> list[Local]:
    """Return the source of a scatter, of which the entries named by the index count."""
    if not node.needs(1) or index.numel() == 0:
        return []
    shape = node.into(1).shape
    over = new_labels(index.shape)
    whole = along(index, over, node.saved("dim")) if over else (Gather(index, ()),) * len(node.shape)
    # A 0-dim index and a tensor of one entry go together.
    picked = tuple(map(bare, over)) if len(over) == len(shape) else (constant(0),) * len(shape)
    return [Local(1, Block(1.0, (), whole[: len(node.shape)], picked))]


@rule("MaskedScatterBackward0", any_dtype=True)
def masked_scatter(node: Node) -> list[Local]:
    """Masked scatter: the i-th entry where the mask is true becomes the i-th entry of the source."""
    mask = node.saved("mask").expand(node.shape)
    terms = kept(node, mask)
    if node.needs(1):
        picked, whole = masked_maps(mask, node.shape)
        terms.append(Local(1, Block(1.0, (), whole, _flat(node.into(1).shape, picked, mask.device))))
    return terms


@reindexing("MaskedScatterBackwardBackward0")
def masked_scatter_backward(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """The entries where the mask is true, in order, then zeros."""
    mask = node.saved("mask")
    picked, whole = masked_maps(mask, in_shape)
    return Block(1.0, (), _flat(shape, picked, mask.device), whole)


def _flat(shape: Sequence[int], picked: Sequence[Map], device: torch.device) -> tuple[Map, ...]:
    """Return the maps of the first entries, in order, of a tensor of a shape; ``picked`` is one bare label."""
    if len(shape) == 1:
        return tuple(picked)
    over = picked[0].labels
    return unravel(torch.arange(over[0].size, device=device), over, shape)


@rule("PutBackward0", any_dtype=True)
def put(node: Node) -> list[Local]:
    """Put: out.flatten()[index[i]] = or += source[i]."""
    index = node.saved("index")
    size = prod(node.shape)
    index = torch.where(index < 0, index + size, index)
    if node.saved("accumulate"):
        terms = _all_kept(node)
    else:
        hole = torch.zeros(size, dtype=torch.bool, device=index.device).index_fill(0, index.reshape(-1), True)
        terms = kept(node, hole.view(node.shape))
    if node.needs(1):
        over = new_labels(index.shape)
        source = node.into(1).shape
        picked: tuple[Map, ...] = tuple(map(bare, over))
        if tuple(index.shape) != source:  # as many entries in another shape
            picked = unravel(torch.arange(index.numel(), device=index.device).view(index.shape), over, source)
        terms.append(Local(1, Block(1.0, (), unravel(index, over, node.shape), picked)))
    return terms


@rule("DiagonalScatterBackward0", any_dtype=True)
def diagonal_scatter(node: Node) -> list[Local]:
    """Write a diagonal: out[…, k + max(−offset, 0), k + max(offset, 0)] = source[…, k]."""
    first, second, offset = node.saved("dim1"), node.saved("dim2"), node.saved("offset")
    meta = node.outputs[0]
    first, second = first % len(meta.shape), second % len(meta.shape)
    sides = [1] * len(meta.shape)
    sides[first], sides[second] = meta.shape[first], meta.shape[second]
    hole = torch.zeros(sides, dtype=torch.bool, device=meta.device)
    hole.diagonal(offset, first, second).fill_(True)
    terms = kept(node, hole)
    if node.needs(1):
        terms.append(Local(1, swapped(diagonal(node, node.into(1).shape, node.shape))))
    return terms
