"""Indexing where a mask says so, as programs that a compiler wrote do: other positions are never read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Label, Map
from .._capture.tape import Node
from .einsum_notation import reindexing, spread
from .gather import index_maps
from .pointwise import diagonal_term
from .registry import Local, rule


@reindexing("UnsafeMaskedIndexBackward0", selects=True)
def masked_index(node: Node, _: tuple[int, ...], in_shape: tuple[int, ...]) -> Block:
    """Read where a mask is true: out[l…] = mask[l…] x[index₀[l…], …]."""
    picked, whole = _maps(node, in_shape)
    return Block(*_where(node, picked), picked, whole)


@rule("UnsafeMaskedIndexPutAccumulateBackward0", any_dtype=True)
def masked_index_put(node: Node) -> list[Local]:
    """Add where a mask is true: out = x and then out[index₀[l…], …] += mask[l…] source[l…]."""
    terms = [diagonal_term(node, 0, 1.0)] if node.needs(0) else []
    if node.needs(1):
        picked, whole = _maps(node, node.shape)
        terms.append(Local(1, Block(*_where(node, picked), whole, picked), selects=True))
    return terms


def _maps(node: Node, shape: Sequence[int]) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Return maps of what is read or added and of the whole, positions outside brought inside: a mask hides those."""
    indices = [
        index if index is None else index.clamp(-size, size - 1)
        for index, size in zip(node.saved("indices"), shape, strict=False)
    ]
    return index_maps(indices, shape)


def _where(node: Node, picked: Sequence[Map]) -> tuple[Tensor, tuple[Label, ...]]:
    """Return the mask as ones and zeros, and the labels over which it runs."""
    return spread(node.saved("mask").to(node.outputs[0].dtype), [map_.labels[0] for map_ in picked])
