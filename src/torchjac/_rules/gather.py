"""Reading at positions held in tensors: the index tensor itself is the law."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.block_views import swapped
from .._blocks.entrywise import broadcast
from .._blocks.maps import Gather, Label, Map, bare, constant
from .._capture.tape import Node
from .einsum_notation import new_labels, reindexing, spread
from .registry import Local, rule
from .views import unravel


def along(index: Tensor, over: tuple[Label, ...], dim: int) -> tuple[Map, ...]:
    """Return the maps of a tensor read at ``index`` along one dim and in place along the others."""
    maps: list[Map] = [bare(label) for label in over]
    if maps:
        maps[dim % len(maps)] = Gather(index, over)
    return tuple(maps)


@reindexing("GatherBackward0")
def gather(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Gather: out[i, j] = x[index[i, j], j] along the dim named."""
    over, index = new_labels(shape), node.saved("index")
    if not over and in_shape:  # one entry of a vector, read at a 0-dim index
        return Block(1.0, (), (), (Gather(index, ()),))
    wrt = along(index, over, node.saved("dim")) if in_shape else ()
    return Block(1.0, (), tuple(map(bare, over)), wrt)


@reindexing("IndexSelectBackward0")
def index_select(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Index select: out[…, i, …] = x[…, index[i], …]."""
    over = new_labels(shape)
    wrt: list[Map] = [bare(label) for label in over]
    if wrt:
        dim = node.saved("dim") % len(wrt)
        wrt[dim] = Gather(node.saved("index").reshape(-1), (over[dim],))
    return Block(1.0, (), tuple(map(bare, over)), tuple(wrt[: len(in_shape)]))


@reindexing("TakeBackward0")
def take(node: Node, shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Take: out[i] = x.flatten()[index[i]]."""
    over, index = new_labels(shape), node.saved("index")
    index = torch.where(index < 0, index + prod(in_shape), index)
    return Block(1.0, (), tuple(map(bare, over)), unravel(index, over, in_shape))


@reindexing("IndexBackward0", "UnsafeIndexBackward0")
def index(node: Node, _: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Advanced indexing: out[l…] = x[index₀[l…], :, index₁[l…], …]."""
    return Block(1.0, (), *index_maps(node.saved("indices"), in_shape))


@reindexing("MaskedSelectBackward0")
def masked_select(node: Node, _: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """Masked select: out[i] is the i-th entry where the mask is true; mask and tensor broadcast."""
    mask = node.saved("mask")
    common = broadcast(mask.shape, shape)
    picked, whole = masked_maps(mask, common)
    whole = whole[len(common) - len(shape) :]
    wrt = tuple(constant(0) if size == 1 else map_ for map_, size in zip(whole, shape, strict=True))
    return Block(1.0, (), picked, wrt)


def masked_maps(mask: Tensor, shape: Sequence[int]) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of the entries where a mask is true, in order, and of the whole tensor, whose shape is given."""
    if shape:
        return index_maps([mask.expand(shape)], shape)
    return (bare(Label(len(mask.reshape(1).nonzero()))),), ()  # no dim, and so no table


def index_maps(
    indices: Sequence[Tensor | None], shape: Sequence[int]
) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of the picked tensor and of the whole one, for ``whole[indices]``."""
    tables: list[Tensor | None] = []
    for table in indices:
        if table is not None and table.dtype in (torch.bool, torch.uint8):
            tables.extend(table.nonzero(as_tuple=True))
        else:
            tables.append(table)
    tables += [None] * (len(shape) - len(tables))
    named = {dim: table for dim, table in enumerate(tables) if table is not None}
    common = broadcast(*(table.shape for table in named.values()))
    over = new_labels(common)
    whole: list[Map] = [bare(Label(size)) for size in shape]
    for dim, table in named.items():
        table = table.to(torch.int64)
        table = torch.where(table < 0, table + shape[dim], table)
        whole[dim] = Gather(*spread(table, over))
    # The labels of the index tensors stand where the first of them is, or in front where they are apart.
    dims = list(named)
    first = dims[0] if dims and dims == list(range(dims[0], dims[-1] + 1)) else 0
    rest = [whole[dim] for dim in range(len(shape)) if dim not in named]
    return (*rest[:first], *map(bare, over), *rest[first:]), tuple(whole)


@rule("EmbeddingBackward0")
def embedding(node: Node) -> list[Local]:
    """Embedding: out[i…, d] = weight[index[i…], d]; the row of ``padding_idx`` gets no gradient.

    With ``scale_grad_by_freq`` each gradient is divided by how often its row is read, as autograd has it.
    """
    factor: Tensor | float = 1.0
    if node.saved("scale_grad_by_freq"):
        table, dtype = node.saved("indices"), node.outputs[0].dtype
        ones = torch.ones(table.numel(), dtype=dtype, device=table.device)
        times = ones.new_zeros(node.into(0).shape[0]).index_add(0, table.reshape(-1), ones)
        factor = times.reciprocal()[table]
    return [Local(0, _embedded(node, node.shape, factor), selects=True)]


@rule("EmbeddingDenseBackwardBackward0")
def embedding_backward(node: Node) -> list[Local]:
    """The transpose of `embedding`: rows of the cotangent are added into rows of the weight."""
    return [Local(0, swapped(_embedded(node, node.into(0).shape)), selects=True)]


def _embedded(node: Node, shape: Sequence[int], factor: Tensor | float = 1.0) -> Block:
    """Return the rows of a weight as an embedding of a shape reads them, each times its factor."""
    over, table, padding = new_labels(shape), node.saved("indices"), node.saved("padding_idx")
    on = over[:-1] if isinstance(factor, Tensor) or padding >= 0 else ()
    if padding >= 0:
        factor = (table != padding).to(node.outputs[0].dtype) * factor
    return Block(factor, on, tuple(map(bare, over)), (Gather(table, over[:-1]), bare(over[-1])))


@reindexing(
    "MaxBackward0", "MinBackward0", "MedianBackward1", "NanmedianBackward1", "ModeBackward0",
    "KthvalueBackward0",
)  # fmt: skip
def chosen(node: Node, _: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """The entry of each row that `max`, `min`, `median`, `mode` or `kthvalue` chose."""
    if not shape:
        return Block(1.0, (), (), ())
    dim = node.saved("dim") % len(shape)
    picked = node.saved("indices")
    if not node.saved("keepdim"):
        picked = picked.unsqueeze(dim)
    over = new_labels(picked.shape)
    out = tuple(bare(label) for d, label in enumerate(over) if node.saved("keepdim") or d != dim)
    wrt = tuple(Gather(picked, over) if d == dim else bare(label) for d, label in enumerate(over))
    return Block(1.0, (), out, wrt)


@reindexing("SortBackward0", "SortBackward1", "TopkBackward0", "CummaxBackward0", "CumminBackward0")
def ordered(node: Node, shape: tuple[int, ...], _: tuple[int, ...]) -> Block:
    """Sort, top-k, running max and min: out[…, k, …] = x[…, index[…, k, …], …]."""
    over = new_labels(shape)
    return Block(1.0, (), tuple(map(bare, over)), along(node.saved("indices"), over, node.saved("dim")))
