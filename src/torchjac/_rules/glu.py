"""Gated linear units: each output entry depends on two entries of the input, half of it apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .._blocks.block import Block
from .._blocks.maps import Affine, Label, Map, bare
from .._capture.tape import Node
from .call import call
from .einsum_notation import new_labels, ones
from .registry import Local, rule


def _halves(shape: Sequence[int], dim: int) -> tuple[tuple[Label, ...], list[tuple[Map, ...]]]:
    """Return labels over one half, and the maps of the first half and of the second."""
    over = new_labels(shape)
    first: tuple[Map, ...] = tuple(map(bare, over))
    behind = Affine(shape[dim], ((over[dim], 1),))
    return over, [first, (*first[:dim], behind, *first[dim + 1 :])]


@rule("GluBackward0")
def glu(node: Node) -> list[Local]:
    """Gated linear unit: out[i] = a[i] σ(b[i]), a and b being the halves of x along a dim.

    ∂out[i]/∂a[i′] = δ[i,i′] σ(b[i])      ∂out[i]/∂b[i′] = δ[i,i′] a[i] σ′(b[i])

    Example: x (2, 6): 12 of 72 entries.
    """
    dim = node.saved("dim") % len(node.shape)
    over, halves = _halves(node.shape, dim)
    (slope,) = call(node, [ones(node)])
    values = () if slope is None else slope.split(max(node.shape[dim], 1), dim)
    return [
        Local(0, Block(value, over, halves[0], half)) for value, half in zip(values, halves, strict=False)
    ]


@rule("GluBackwardBackward0")
def glu_backward(node: Node) -> list[Local]:
    """The backward of a gated linear unit: da[i] = g[i] σ(b[i]) and db[i] = g[i] a[i] σ′(b[i]).

    By g there are two diagonals; by x three, as da does not depend on a.
    """
    dim = node.saved("dim") % len(node.shape)
    size = node.shape[dim] // 2
    over, halves = _halves([n if d != dim else size for d, n in enumerate(node.shape)], dim)
    one = ones(node).narrow(dim, 0, size)
    terms = []
    for number, out in enumerate(halves):
        pair = (one, torch.zeros_like(one))
        by_g, by_x = call(node, [torch.cat(pair if number == 0 else pair[::-1], dim)])
        if by_g is not None and node.needs(0):
            terms.append(Local(0, Block(by_g, over, out, halves[0])))
        for other, half in enumerate(halves):
            if by_x is not None and node.needs(1) and (number or other):
                terms.append(Local(1, Block(by_x.narrow(dim, other * size, size), over, out, half)))
    return terms
