"""The cross product of vectors of three: out[k] = a[k+1] b[k+2] − a[k+2] b[k+1], positions counted modulo 3."""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Affine, Label, bare
from .._capture.tape import Node
from .einsum_notation import broadcast, new_labels, spread
from .pointwise import same_dims
from .registry import Local, LocalJacobian, rule


@rule("LinalgCrossBackward0")
def linalg_cross(node: Node) -> LocalJacobian | list[Local]:
    """Cross product along a dim: each entry depends on two of each factor.

    ∂out[k]/∂a[k′] = δ[k+1,k′] b[k+2] − δ[k+2,k′] b[k+1]      ∂out[k]/∂b[k′] = δ[k+2,k′] a[k+1] − δ[k+1,k′] a[k+2]

    Example: n pairs of vectors: 6n entries for each factor, not 9n, in three blocks without a table.
    """
    dim = node.saved("dim") % len(node.shape)
    if node.touches_complex:  # a product does not commute with conjugation
        known = same_dims(node)
        return known._replace(
            batch_dims={
                k: tuple(pair for pair in pairs if pair[0] != dim) for k, pairs in known.batch_dims.items()
            }
        )
    over = new_labels(node.shape)
    rows = tuple(map(bare, over))
    terms = []
    for k, (name, sign) in enumerate((("other", 1), ("self", -1))):
        if not node.needs(k):
            continue
        factor = node.saved(name)
        # Above the diagonal, below it, and the corners: two entries each, by places in the output and in the factor.
        back = dim - len(node.shape)
        first, second, third = (factor * sign).split(1, back)
        ends, middle = torch.cat([third, first], back), torch.cat([-second, second], back)
        along = Label(2)
        labels = [*over[:dim], along, *over[dim + 1 :]]
        columns = broadcast(over, node.into(k).shape)
        for values, (start, step), (at, towards) in (
            (ends, (0, 1), (1, 1)),
            (-ends, (1, 1), (0, 1)),
            (middle, (0, 2), (2, -2)),
        ):
            value, on = spread(values, labels)
            out = (*rows[:dim], Affine(start, ((along, step),)), *rows[dim + 1 :])
            wrt = (*columns[:dim], Affine(at, ((along, towards),)), *columns[dim + 1 :])
            terms.append(Local(k, Block(value, on, out, wrt)))
    return terms
