"""Formulas that take many cotangents at once through nodes that read and write by tables of indices, and their like."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.entrywise import broadcast
from .._blocks.tracing import is_known
from .._capture.tape import Node
from .batched_formulas import Results, dim_of, formula

_aten = torch.ops.aten


def _zeros(node: Node, rows: Tensor, count: int) -> Tensor:
    return torch.zeros((count, *node.into(0).shape), dtype=rows.dtype, device=rows.device)


def _behind(node: Node) -> list[Tensor | None] | None:
    """The tables of an index behind the dim of rows; None where dims lie between them, which the result moves."""
    tables: Sequence[Tensor | None] = node.saved("indices")
    given = [at for at, table in enumerate(tables) if table is not None]
    return [None, *tables] if given and given[-1] - given[0] == len(given) - 1 else None


@formula("IndexBackward0")
def _index(node: Node, count: int, rows: Tensor) -> Results | None:
    tables = _behind(node)
    return tables and [_aten.index_put.default(_zeros(node, rows, count), tables, rows, True)]


@formula("IndexPutBackward0", "IndexPutImplBackward0")
def _index_put(node: Node, count: int, rows: Tensor) -> Results | None:
    if node.saved("accumulate") and not node.needs(1):
        return [rows]
    tables = _behind(node)
    if tables is None:
        return None
    kept = written = None
    if node.needs(0):
        zero = torch.zeros((), dtype=rows.dtype, device=rows.device)
        kept = rows if node.saved("accumulate") else _aten.index_put.default(rows, tables, zero, False)
    if node.needs(1):
        written = _aten.index.Tensor(rows, tables)
    return [kept, written]


def _table(node: Node, count: int) -> Tensor:
    """Return a table that a gather reads by, for all rows."""
    table: Tensor = node.saved("index")
    return table.expand(count, *table.shape)


@formula("IndexSelectBackward0")
def _index_select(node: Node, count: int, rows: Tensor) -> Results | None:
    shape, index = node.into(0).shape, node.saved("index")
    if not shape or index.dim() != 1:
        return None
    return [_zeros(node, rows, count).index_add(dim_of(node, "dim", len(shape)), index, rows)]


@formula("IndexAddBackward0")
def _index_add(node: Node, count: int, rows: Tensor) -> Results | None:
    if not node.needs(1):
        return [rows]
    index, alpha = node.saved("index"), node.saved("alpha")
    if not node.shape or index.dim() != 1:
        return None
    read = rows.index_select(dim_of(node, "dim", len(node.shape)), index)
    return [rows, read if alpha == 1 else read * alpha]


@formula("GatherBackward0")
def _gather(node: Node, count: int, rows: Tensor) -> Results | None:
    rank = len(node.into(0).shape)
    if not rank or node.saved("index").dim() != rank:
        return None
    return [_zeros(node, rows, count).scatter_add(dim_of(node, "dim", rank), _table(node, count), rows)]


@formula("ScatterBackward0", "ScatterAddBackward0")
def _scatter(node: Node, count: int, rows: Tensor) -> Results | None:
    adds = node.name == "ScatterAddBackward0"
    if adds and not node.needs(1):
        return [rows]
    table = _table(node, count)
    if (
        not node.shape
        or table.dim() != rows.dim()
        or (node.needs(1) and node.into(1).shape != table.shape[1:])
    ):
        return None
    dim = dim_of(node, "dim", len(node.shape))
    kept = rows if adds or not node.needs(0) else rows.scatter(dim, table, 0)
    return [kept, rows.gather(dim, table) if node.needs(1) else None]


@formula(
    "MaxBackward0", "MinBackward0", "SortBackward0", "SortBackward1", "TopkBackward0", "KthvalueBackward0"
)
def _selected(node: Node, count: int, rows: Tensor, *_: None) -> Results | None:
    table, rank = node.saved("indices"), len(node.into(0).shape)
    if not rank:
        return None
    dim = dim_of(node, "dim", rank)
    if table.dim() < rank:
        rows, table = rows.unsqueeze(dim), table.unsqueeze(dim - 1)
    return [_zeros(node, rows, count).scatter(dim, table.expand(count, *table.shape), rows)]


@formula("CumprodBackward0")
def _cumprod(node: Node, count: int, rows: Tensor) -> Results | None:
    x = node.saved("self")
    if not node.shape or x.is_complex() or not is_known(x) or bool((x == 0).any()):
        return None
    dim = dim_of(node, "dim", len(node.shape))
    return [(rows * node.saved("result")).flip(dim).cumsum(dim).flip(dim) / x]


@formula("CummaxBackward0", "CumminBackward0")
def _cummax(node: Node, count: int, rows: Tensor, *_: None) -> Results:
    if not node.shape:
        return [rows]
    table = node.saved("indices").expand(rows.shape)
    return [torch.zeros_like(rows).scatter_add(dim_of(node, "dim", len(node.shape)), table, rows)]


@formula("TakeBackward0")
def _take(node: Node, count: int, rows: Tensor) -> Results:
    shape, table = node.into(0).shape, node.saved("index").reshape(-1)
    zeros = torch.zeros((count, prod(shape)), dtype=rows.dtype, device=rows.device)
    return [_aten.index_put.default(zeros, [None, table], rows.reshape(count, -1), True).view(count, *shape)]


@formula("IndexCopyBackward0")
def _index_copy(node: Node, count: int, rows: Tensor) -> Results | None:
    index = node.saved("index")
    if not node.shape or index.dim() != 1:
        return None
    dim = dim_of(node, "dim", len(node.shape))
    kept = rows.index_fill(dim, index, 0) if node.needs(0) else None
    return [kept, rows.index_select(dim, index) if node.needs(1) else None]


@formula("MaskedSelectBackward0")
def _masked_select(node: Node, count: int, rows: Tensor) -> Results:
    mask = node.saved("mask")
    shape = (count, *broadcast(node.into(0).shape, mask.shape))
    zeros = torch.zeros(shape, dtype=rows.dtype, device=rows.device)
    return [zeros.masked_scatter(mask.expand(shape), rows)]


@formula("EmbeddingBackward0")
def _embedding(node: Node, count: int, rows: Tensor) -> Results | None:
    if node.saved("scale_grad_by_freq") or node.saved("sparse"):
        return None
    table, padding = node.saved("indices").reshape(-1), node.saved("padding_idx")
    rows = rows.reshape(count, len(table), node.into(0).shape[1])
    if padding >= 0:
        rows = rows.masked_fill((table == padding).unsqueeze(-1), 0)
    return [_zeros(node, rows, count).index_add(1, table, rows)]


@formula("ConstantPadNdBackward0")
def _pad(node: Node, count: int, rows: Tensor) -> Results:
    return [_aten.constant_pad_nd.default(rows, [-size for size in node.saved("pad")])]


@formula("DiagonalBackward0")
def _diagonal(node: Node, count: int, rows: Tensor) -> Results:
    shape = node.into(0).shape
    dims = [dim_of(node, name, len(shape)) for name in ("dim1", "dim2")]
    return [_aten.diagonal_backward.default(rows, (count, *shape), node.saved("offset"), *dims)]


@formula("DiagonalBackwardBackward0", "DiagEmbedBackward0")
def _diagonal_backward(node: Node, count: int, rows: Tensor) -> Results:
    dims = [dim_of(node, name, len(node.shape)) for name in ("dim1", "dim2")]
    return [rows.diagonal(node.saved("offset"), *dims)]


@formula("UnfoldBackward0")
def _unfold(node: Node, count: int, rows: Tensor) -> Results | None:
    shape = node.into(0).shape
    if not shape:
        return None
    dim = dim_of(node, "dimension", len(shape))
    return [_aten.unfold_backward.default(rows, (count, *shape), dim, node.saved("size"), node.saved("step"))]


@formula("ViewAsRealBackward0")
def _view_as_real(node: Node, count: int, rows: Tensor) -> Results:
    return [torch.view_as_complex(rows.contiguous())]


@formula("LinalgCrossBackward0")
def _cross(node: Node, count: int, rows: Tensor) -> Results:
    dim = dim_of(node, "dim", len(node.shape))

    def factor(name: str) -> Tensor:
        return node.saved(name).conj().unsqueeze(0)  # type: ignore[no-any-return]

    return [
        torch.linalg.cross(factor("other"), rows, dim=dim) if node.needs(0) else None,
        torch.linalg.cross(rows, factor("self"), dim=dim) if node.needs(1) else None,
    ]


@formula("FftR2CBackward0")
def _real_transform(node: Node, count: int, rows: Tensor) -> Results:
    shape, dims = node.into(0).shape, node.saved("dim")
    over = [dim % len(shape) + 1 for dim in dims]
    if node.saved("onesided"):
        last = over[-1]
        padding = [0, 0] * (len(shape) - last) + [0, shape[last - 1] - node.shape[last - 1]]
        rows = _aten.constant_pad_nd.default(rows, padding)
    return [_aten._fft_c2c.default(rows, over, node.saved("normalization"), False).real]


@formula("FftC2RBackward0")
def _real_inverse(node: Node, count: int, rows: Tensor) -> Results:
    over = [dim % len(node.shape) + 1 for dim in node.saved("dim")]
    found = _aten._fft_r2c.default(rows, over, node.saved("normalization"), True)
    size = found.shape[over[-1]]
    twice = [1.0] + [2.0] * (size - 1)
    if node.shape[over[-1] - 1] % 2 == 0 and size > 1:
        twice[-1] = 1.0
    factor = torch.tensor(twice, dtype=rows.dtype, device=rows.device)
    return [found * factor.view(-1, *(1,) * (len(node.shape) - over[-1]))]


@formula("FftC2CBackward0")
def _complex_transform(node: Node, count: int, rows: Tensor) -> Results:
    over = [dim % len(node.shape) + 1 for dim in node.saved("dim")]
    return [_aten._fft_c2c.default(rows, over, node.saved("normalization"), not node.saved("forward"))]
