"""Reductions: every input entry counts towards one output entry, so one call on ones gives all factors."""

from __future__ import annotations

import math
from math import prod

from torch import Tensor

from .._blocks.block import Block, interned
from .._blocks.maps import Label, bare, constant
from .._capture.tape import Node
from .call import call
from .einsum_notation import new_labels, ones, reduced_dims, spread
from .registry import Local, rule


def _reduction(node: Node, value: Tensor | float | None, slot: int = 0) -> list[Local]:
    """Return the term of a reduction, its factors given or found by a call on ones, which may find that it is zero."""
    shape = node.into(0).shape
    dims, kept = reduced_dims(node)
    rank = len(node.outputs[slot].shape)
    _, over, out, wrt = _reduced(shape, frozenset(dims), kept and rank == len(shape))
    on: tuple[Label, ...] = ()
    if value is None:
        cotangents: list[Tensor | None] = [None] * len(node.outputs)
        cotangents[slot] = ones(node, slot)
        value = call(node, cotangents)[0]
        if value is None:
            return []
    if isinstance(value, Tensor):
        value, on = spread(value.reshape(shape) if not shape else value, over)  # a 0-dim one may come as (1,)
    return [Local(0, Block(value, on, out, wrt), slot, node.name in SELECTING)]


@interned
def _reduced(shape: tuple[int, ...], dims: frozenset[int], kept: bool) -> Block:
    """∂out[i]/∂x[i′,j] = δ[i,i′], over all labels of the input."""
    over = new_labels(shape)
    out = [
        bare(label) if dim not in dims else constant(0)
        for dim, label in enumerate(over)
        if kept or dim not in dims
    ]
    return Block(1.0, over, tuple(out), tuple(map(bare, over)))


@rule("SumBackward0", "SumBackward1", any_dtype=True)
def sum_(node: Node) -> list[Local]:
    """Sum: ∂out[i]/∂x[i′,j] = δ[i,i′]."""
    return _reduction(node, 1.0)


@rule("MeanBackward0", "MeanBackward1")
def mean(node: Node) -> list[Local]:
    """Mean over n entries: ∂out[i]/∂x[i′,j] = δ[i,i′] / n."""
    return _reduction(node, prod(node.shape) / prod(node.into(0).shape))


#: Reductions whose backward selects entries, or drops what arrives where the value is 0
SELECTING = frozenset((
    "MaxBackward1", "MedianBackward0", "MinBackward1", "NanmedianBackward0", "StdBackward0",
    "StdMeanBackward0",
))  # fmt: skip


@rule(
    "ProdBackward0", "ProdBackward1", "NansumBackward0", "VarBackward0", "StdBackward0",
    "LogsumexpBackward0", "AmaxBackward0", "AminBackward0", "MaxBackward1", "MinBackward1", "MedianBackward0",
    "NanmedianBackward0",
)  # fmt: skip
def reduction(node: Node) -> list[Local]:
    """Any reduction along dims: ∂out[i]/∂x[i′,j] = δ[i,i′] · node(1)[i,j]."""
    return _reduction(node, None)


@rule("NormBackward0", "NormBackward1", "NormBackward2", "NormBackward3", "LinalgVectorNormBackward0")
def norm(node: Node) -> list[Local]:
    """Norm along dims: a reduction whose subgradient at 0 is 0.

    PyTorch multiplies with that 0 for the orders 1, 2, ∞ and those below 1 (an infinite cotangent makes NaN),
    and for the others drops whatever arrives there (torch 2.9-2.13).
    """
    order = node.saved("ord" if node.name.startswith("Linalg") else "p")
    drops = order is not None and order > 1 and order not in (2, math.inf)
    return [term._replace(selects=drops) for term in _reduction(node, None)]


@rule("VarMeanBackward0", "StdMeanBackward0", "AminmaxBackward0")
def reductions(node: Node) -> list[Local]:
    """Two reductions along the same dims, each a term of its own."""
    return [term for slot in range(len(node.outputs)) for term in _reduction(node, None, slot)]
