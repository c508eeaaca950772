"""Writing into part of a tensor: what was there keeps its entries outside, the source stands inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Affine, Gather, Label, Map, bare, constant, positions
from .._capture.tape import Node
from .gather import along, index_maps
from .pieces import shifted, slice_start
from .registry import Local, rule
from .spell import new_labels


def _source(node: Node, k: int, picked: Sequence[Map], whole: Sequence[Map]) -> list[Local]:
    """The source of a write, which may broadcast over the part written."""
    if not node.needs(k):
        return []
    shape = node.into(k).shape
    lead = len(picked) - len(shape)
    wrt = tuple(
        map_ if size != 1 or not map_.labels or map_.labels[0].size == 1 else constant(0)
        for map_, size in zip(picked[lead:], shape, strict=True)
    )
    return [Local(k, Block(1.0, (), tuple(whole), wrt))]


def _kept(node: Node, hole: Tensor) -> list[Local]:
    """The tensor written into: a diagonal of ones with zeros where ``hole`` (broadcasting) is true."""
    if not node.needs(0):
        return []
    over = new_labels(node.shape)
    maps = tuple(map(bare, over))
    on = over[len(over) - hole.dim() :]
    keep = [dim for dim, label in enumerate(on) if hole.shape[dim] == label.size]
    value = (~hole).to(node.outputs[0].dtype).reshape([hole.shape[dim] for dim in keep])
    return [Local(0, Block(value, tuple(on[dim] for dim in keep), maps, maps))]


def _all_kept(node: Node) -> list[Local]:
    maps = tuple(map(bare, new_labels(node.shape)))
    return [Local(0, Block(1.0, (), maps, maps))] if node.needs(0) else []


def _outside(node: Node, dim: int, start: int, step: int, count: int) -> list[Local]:
    """The tensor written into, where a slice along one dim was overwritten: what lies before and after."""
    if not node.needs(0):
        return []
    size = node.shape[dim]
    if step != 1 and count > 1:
        hole = torch.zeros(size, dtype=torch.bool, device=node.outputs[0].device)
        hole[start : start + step * count : step] = True
        return _kept(node, hole.view([-1 if d == dim else 1 for d in range(len(node.shape))]))
    terms = []
    for at, length in ((0, start), (start + count, size - start - count)):
        if length > 0:
            maps = [bare(label) for label in new_labels(node.shape)]
            maps[dim] = shifted(length, at)[1]
            terms.append(Local(0, Block(1.0, (), tuple(maps), tuple(maps))))
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
    return _outside(node, dim, start, step, count) + _source(node, 1, picked, whole)


@rule("SelectScatterBackward0", any_dtype=True)
def select_scatter(node: Node) -> list[Local]:
    """Write one position of a dim: out[…, index, …] = source."""
    dim = node.saved("dim") % len(node.shape)
    at = node.saved("index") % node.shape[dim]
    picked = [bare(label) for d, label in enumerate(new_labels(node.shape)) if d != dim]
    whole = (*picked[:dim], constant(at), *picked[dim:])
    return _outside(node, dim, at, 1, 1) + _source(node, 1, picked, whole)


@rule("IndexPutBackward0", "IndexPutImplBackward0", "UnsafeIndexPutBackward0", any_dtype=True)
def index_put(node: Node) -> list[Local] | None:
    """Write or add at positions held in tensors: out[index₀[l], index₁[l], …] = or += source[l]."""
    picked, whole = index_maps(node.saved("indices"), node.shape)
    if picked is None:
        return _all_kept(node)
    source = _source(node, 1, picked, whole)
    if node.saved("accumulate"):
        return _all_kept(node) + source
    return _kept(node, _written(node, whole)) + source


def _written(node: Node, whole: Sequence[Map]) -> Tensor:
    """Which entries were written, as a mask over the index tensors' dims."""
    meta = node.outputs[0]
    tables = [dim for dim, map_ in enumerate(whole) if type(map_) is Gather]
    shape = [size if dim in tables else 1 for dim, size in enumerate(meta.shape)]
    hole = torch.zeros(shape, dtype=torch.bool, device=meta.device)
    over = tuple(dict.fromkeys(label for dim in tables for label in whole[dim].labels))
    index = tuple(
        positions(whole[dim], over, meta.device) if dim in tables else torch.zeros((), dtype=torch.int64)
        for dim in range(len(shape))
    )
    return hole.index_put(index, torch.ones((), dtype=torch.bool, device=meta.device))


@rule("IndexAddBackward0", any_dtype=True)
def index_add(node: Node) -> list[Local] | None:
    """Add at positions along a dim: out[…, index[i], …] += α source[…, i, …]."""
    alpha = node.saved("alpha") if node.needs(1) else 1
    if isinstance(alpha, complex) or not node.shape:
        return None
    terms = _all_kept(node)
    if node.needs(1):
        picked, whole = _indexed(node, node.into(1).shape)
        terms.append(Local(1, Block(float(alpha), (), whole, picked)))
    return terms


@rule("IndexCopyBackward0", "IndexFillBackward0", any_dtype=True)
def index_copy(node: Node) -> list[Local] | None:
    """Write at positions along a dim: out[…, index[i], …] = source[…, i, …]."""
    if not node.shape:
        return None
    dim, index = node.saved("dim") % len(node.shape), node.saved("index").reshape(-1)
    hole = torch.zeros(node.shape[dim], dtype=torch.bool, device=index.device)
    hole = hole.index_fill(0, index, True)
    terms = _kept(node, hole.view([-1 if d == dim else 1 for d in range(len(node.shape))]))
    if node.needs(1):
        picked, whole = _indexed(node, node.into(1).shape)
        terms.append(Local(1, Block(1.0, (), whole, picked)))
    return terms


def _indexed(node: Node, shape: Sequence[int]) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    over = new_labels(shape)
    picked = tuple(map(bare, over))
    whole = list(picked)
    dim = node.saved("dim") % len(node.shape)
    whole[dim] = Gather(node.saved("index").reshape(-1), (over[dim],))
    return picked, tuple(whole)


@rule("ScatterBackward0", "ScatterBackward1", any_dtype=True)
def scatter(node: Node) -> list[Local] | None:
    """Scatter: out[index[i, j], j] = source[i, j], the rest as it was."""
    index = node.saved("index")
    if not node.shape:
        return None
    if index.numel() == 0:
        return _all_kept(node)
    hole = torch.zeros(node.shape, dtype=torch.bool, device=index.device)
    return _kept(node, hole.scatter(node.saved("dim"), index, True)) + _scattered(node, index)


@rule("ScatterAddBackward0", any_dtype=True)
def scatter_add(node: Node) -> list[Local] | None:
    """Scatter-add: out[index[i, j], j] += source[i, j]."""
    if not node.shape:
        return None
    return _all_kept(node) + (_scattered(node, node.saved("index")) if node.needs(1) else [])


def _scattered(node: Node, index: Tensor) -> list[Local]:
    if not node.needs(1) or index.numel() == 0:
        return []
    over = new_labels(index.shape)
    return [Local(1, Block(1.0, (), along(index, over, node.saved("dim")), tuple(map(bare, over))))]


