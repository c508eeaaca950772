"""Backward formulas of ops by index, where PyTorch's own fails: it refuses, or gives a sparse tensor.

A source larger than its index gets the cotangents that the index reads, and zeros beyond (torch 2.13 forgets those and
then refuses what it has); the gradient of a product is spelled so that it has derivatives where entries are zero; an
extremum that leaves self out does not count it; and the gradient of an embedding with ``sparse=True`` is dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._capture.tape import Node
from .backward_overrides import BackwardFormula, Results, register, shaped
from .reduce_by_index import Reduction


def _own(rows: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return what is left of rows where something was written over them."""
    return rows.scatter(dim, index.expand(len(rows), *index.shape), 0) if index.numel() else rows


def _read(rows: Tensor, dim: int, index: Tensor, factor: Tensor | float, shape: tuple[int, ...]) -> Tensor:
    """Return the rows read at an index and multiplied, with zeros up to the shape of the source."""
    found = rows.gather(dim, index.expand(len(rows), *index.shape)) * factor
    if index.dim() != len(shape):  # of one entry each
        return found.reshape(len(rows), *shape)
    margins = [size for own, whole in zip(index.shape, shape, strict=True) for size in (whole - own, 0)]
    return torch.nn.functional.pad(found, margins[::-1]) if any(margins) else found


def _scatter(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """Scatter and scatter-add, whose source is differentiated; a 0-dim tensor is taken for one of an entry."""
    index = node.saved("index")
    shape = node.shape or (1,)
    index, dim = index.reshape(index.shape or (1,)), node.saved("dim") % len(shape) + 1
    rows = g.reshape(prod(lead), *shape)
    adds = node.name == "ScatterAddBackward0"
    own = (rows if adds else _own(rows, dim, index)) if node.needs(0) else None
    return shaped(node, lead, [own, _read(rows, dim, index, 1.0, node.into(1).shape)])


def _reduce(node: Node, lead: Sequence[int], g: Tensor) -> Results:
    """Return a reduction by index, by the factors of its rule."""
    found, shape = Reduction(node), node.shape or (1,)
    index, dim = found.index.reshape(found.index.shape or (1,)), found.dim + 1
    rows = g.reshape(prod(lead), *shape)
    own, factor = found.factors()
    kept = (rows * own if found.includes_self else _own(rows, dim, index)) if node.needs(0) else None
    source = _read(rows, dim, index, factor, node.into(1).shape) if node.needs(1) else None
    return shaped(node, lead, [kept, source])


def _embedding(node: Node, lead: Sequence[int], g: Tensor) -> Results | None:
    """Return an embedding: the rows of the cotangent added where they were read, but for those of the padding."""
    if not _is_sparse(node):
        return None
    ids, features = node.saved("indices").reshape(-1), node.shape[-1]
    rows = g.reshape(prod(lead), ids.numel(), features)
    rows = rows.masked_fill((ids == node.saved("padding_idx")).unsqueeze(-1), 0)
    whole = torch.zeros(len(rows), *node.into(0).shape, dtype=g.dtype, device=g.device)
    return shaped(node, lead, [whole.index_add(1, ids, rows)])


def _is_sparse(node: Node) -> bool:
    return bool(node.saved("sparse"))


def _is_short(node: Node) -> bool:
    """Return whether a source has entries that the index does not name."""
    return node.needs(1) and node.into(1).shape != tuple(node.saved("index").shape)


def _reduce_fails(node: Node) -> bool:
    """Or a reduction's source; of a product, at zeros perhaps; and of extrema that leave self out."""
    kind, is_scatter = node.saved("reduce"), node.name == "ScatterReduceBackward0"
    if is_scatter and node.saved("src").shape != node.saved("index").shape:
        return True
    return kind == "prod" or (kind != "mean" and not node.saved("include_self"))


register(["ScatterBackward0", "ScatterAddBackward0"], BackwardFormula(_scatter, fails=_is_short))
register(["ScatterReduceBackward0", "IndexReduceBackward0"], BackwardFormula(_reduce, fails=_reduce_fails))
register(["EmbeddingBackward0"], BackwardFormula(_embedding, fails=_is_sparse))
