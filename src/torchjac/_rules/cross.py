"""The cross product of vectors of three: out[k] = a[k+1] b[k+2] − a[k+2] b[k+1], positions counted modulo 3."""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import Gather, Map, bare
from .._capture.tape import Node
from .einsum_notation import broadcast, new_labels, spread
from .pointwise import same_dims
from .registry import Local, LocalJacobian, rule


@rule("LinalgCrossBackward0")
def linalg_cross(node: Node) -> LocalJacobian | list[Local]:
    """Cross product along a dim: each entry depends on two of each factor.

    ∂out[k]/∂a[k′] = δ[k+1,k′] b[k+2] − δ[k+2,k′] b[k+1]      ∂out[k]/∂b[k′] = δ[k+2,k′] a[k+1] − δ[k+1,k′] a[k+2]

    Example: n pairs of vectors: 6n entries for each factor, not 9n.
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
    out = tuple(map(bare, over))
    terms = []
    for k, (name, sign) in enumerate((("other", 1), ("self", -1))):
        if not node.needs(k):
            continue
        factor = node.saved(name)
        for ahead in (1, 2):
            # The factor read at the third position, neither that of the output nor that of the other factor.
            value, on = spread(
                factor.roll(ahead, dim - len(node.shape)) * (sign if ahead == 1 else -sign), over
            )
            at = (torch.arange(3, device=factor.device) + ahead) % 3
            wrt: list[Map] = list(broadcast(over, node.into(k).shape))
            wrt[dim] = Gather(at, (over[dim],))
            terms.append(Local(k, Block(value, on, out, tuple(wrt))))
    return terms
