"""Reading at positions held in tensors: the index tensor itself is the law."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare, constant
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import Local, rule
from .views import unravel


def along(index: Tensor, over: tuple[Label, ...], dim: int) -> tuple[Map, ...]:
    """Return the maps of a tensor read at ``index`` along one dim and in place along the others."""
    maps: list[Map] = [bare(label) for label in over]
    if maps:
        maps[dim % len(maps)] = Gather(index, over)
    return tuple(maps)


@rule("GatherBackward0", any_dtype=True)
def gather(node: Node) -> list[Local]:
    """Gather: out[i, j] = x[index[i, j], j] along the dim named."""
    over = new_labels(node.shape)
    index = node.saved("index")
    if not node.into(0).shape:
        return [Local(0, Block(1.0, (), tuple(map(bare, over)), ()))]
    if not over:  # one entry of a vector, read at a 0-dim index
        return [Local(0, Block(1.0, (), (), (Gather(index, ()),)))]
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), along(index, over, node.saved("dim"))))]


@rule("IndexSelectBackward0", any_dtype=True)
def index_select(node: Node) -> list[Local]:
    """Index select: out[…, i, …] = x[…, index[i], …]."""
    over = new_labels(node.shape)
    wrt: list[Map] = [bare(label) for label in over]
    if wrt:
        dim = node.saved("dim") % len(wrt)
        wrt[dim] = Gather(node.saved("index").reshape(-1), (over[dim],))
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), tuple(wrt[: len(node.into(0).shape)])))]


@rule("TakeBackward0", any_dtype=True)
def take(node: Node) -> list[Local]:
    """Take: out[i] = x.flatten()[index[i]]."""
    over, shape = new_labels(node.shape), node.into(0).shape
    index = node.saved("index")
    index = torch.where(index < 0, index + torch.Size(shape).numel(), index)
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), unravel(index, over, shape)))]


@rule("IndexBackward0", "UnsafeIndexBackward0", any_dtype=True)
def index(node: Node) -> list[Local]:
    """Advanced indexing: out[l…] = x[index₀[l…], :, index₁[l…], …]."""
    picked, whole = index_maps(node.saved("indices"), node.into(0).shape)
    if picked is None:
        return []
    return [Local(0, Block(1.0, (), picked, whole))]


@rule("MaskedSelectBackward0", any_dtype=True)
def masked_select(node: Node) -> list[Local]:
    """Masked select: out[i] is the i-th entry where the mask is true; mask and tensor broadcast."""
    shape = node.into(0).shape
    mask = node.saved("mask")
    common = torch.broadcast_shapes(mask.shape, shape)
    if not common:  # index_maps has one table for each dim: none here
        return [Local(0, Block(1.0, (), (constant(0),), ()))] if node.shape[0] else []
    picked, whole = index_maps([mask.expand(common)], common)
    if picked is None:
        return []
    whole = whole[len(common) - len(shape) :]
    wrt = tuple(constant(0) if size == 1 else map_ for map_, size in zip(whole, shape, strict=True))
    return [Local(0, Block(1.0, (), picked, wrt))]


def index_maps(
    indices: Sequence[Tensor | None], shape: Sequence[int]
) -> tuple[tuple[Map, ...] | None, tuple[Map, ...]]:
    """Return maps of the picked tensor and of the whole one, for ``whole[indices]``; None if nothing is picked."""
    tables: list[Tensor | None] = []
    for table in indices:
        if table is not None and table.dtype in (torch.bool, torch.uint8):
            tables.extend(table.nonzero(as_tuple=True))
        else:
            tables.append(table)
    tables += [None] * (len(shape) - len(tables))
    named = {dim: table for dim, table in enumerate(tables) if table is not None}
    common = torch.broadcast_shapes(*(table.shape for table in named.values())) if named else ()
    over = new_labels(common)
    whole: list[Map] = [bare(Label(size)) for size in shape]
    if 0 in common:
        return None, tuple(whole)
    for dim, table in named.items():
        table = table.to(torch.int64)
        table = torch.where(table < 0, table + shape[dim], table)
        whole[dim] = Gather(*_compact(table, over))
    # The labels of the index tensors stand where the first of them is, or in front where they are apart.
    dims = list(named)
    first = dims[0] if dims and dims == list(range(dims[0], dims[-1] + 1)) else 0
    rest = [whole[dim] for dim in range(len(shape)) if dim not in named]
    return (*rest[:first], *map(bare, over), *rest[first:]), tuple(whole)


def _compact(table: Tensor, over: tuple[Label, ...]) -> tuple[Tensor, tuple[Label, ...]]:
    """Return an index tensor without the dims it is broadcast along."""
    over = over[len(over) - table.dim() :]
    keep = [dim for dim, label in enumerate(over) if table.shape[dim] == label.size]
    shape = [table.shape[dim] for dim in keep]
    return table.reshape(shape), tuple(over[dim] for dim in keep)


@rule("EmbeddingBackward0")
def embedding(node: Node) -> list[Local] | None:
    """Embedding: out[i…, d] = weight[index[i…], d]; the row of ``padding_idx`` gets no gradient."""
    if node.saved("scale_grad_by_freq"):
        return None
    over = new_labels(node.shape)
    table = node.saved("indices")
    meta = node.outputs[0]
    padding = node.saved("padding_idx")
    value: Tensor | float = 1.0
    on: tuple[Label, ...] = ()
    if padding >= 0:
        value, on = (table != padding).to(meta.dtype), over[:-1]
    block = Block(value, on, tuple(map(bare, over)), (Gather(table, over[:-1]), bare(over[-1])))
    return [Local(0, block, selects=True)]


@rule("EmbeddingDenseBackwardBackward0")
def embedding_backward(node: Node) -> list[Local]:
    """The transpose of `embedding`: rows of the cotangent are added into rows of the weight."""
    table, padding = node.saved("indices"), node.saved("padding_idx")
    over = new_labels(node.into(0).shape)
    value: Tensor | float = 1.0
    on: tuple[Label, ...] = ()
    if padding >= 0:
        value, on = (table != padding).to(node.outputs[0].dtype), over[:-1]
    block = Block(value, on, (Gather(table, over[:-1]), bare(over[-1])), tuple(map(bare, over)))
    return [Local(0, block, selects=True)]


@rule(
    "MaxBackward0", "MinBackward0", "MedianBackward1", "NanmedianBackward1", "ModeBackward0",
    "KthvalueBackward0",
    any_dtype=True,
)  # fmt: skip
def chosen(node: Node) -> list[Local]:
    """The entry of each row that `max`, `min`, `median`, `mode` or `kthvalue` chose."""
    shape = node.into(0).shape
    if not shape:
        return [Local(0, Block(1.0, (), (), ()))]
    dim = node.saved("dim") % len(shape)
    picked = node.saved("indices")
    if not node.saved("keepdim"):
        picked = picked.unsqueeze(dim)
    over = new_labels(picked.shape)
    out = tuple(bare(label) for d, label in enumerate(over) if node.saved("keepdim") or d != dim)
    wrt = tuple(Gather(picked, over) if d == dim else bare(label) for d, label in enumerate(over))
    return [Local(0, Block(1.0, (), out, wrt))]


@rule("SortBackward0", "SortBackward1", "TopkBackward0", "CummaxBackward0", "CumminBackward0", any_dtype=True)
def ordered(node: Node) -> list[Local]:
    """Sort, top-k, running max and min: out[…, k, …] = x[…, index[…, k, …], …]."""
    over = new_labels(node.shape)
    wrt = along(node.saved("indices"), over, node.saved("dim"))
    return [Local(0, Block(1.0, (), tuple(map(bare, over)), wrt))]
