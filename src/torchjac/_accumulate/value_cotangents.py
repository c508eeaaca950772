"""The values of a block as cotangents: a node that selects is called on them, where it would be called on ones.

Its zeros and the product with them are two calls, and others look for what is not finite, which zeros drop; the node
itself does all in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import bare_label
from .._blocks.tracing import is_tracing, is_transformed
from .._capture.tape import Edge, Node
from .._rules.batched_formulas import BROADCAST
from .._rules.call import call
from .._rules.pointwise import SELECTING
from .report import PendingBlocks

#: Blocks, each with the tensor that it goes to
Sent: TypeAlias = list[tuple[Edge, Block]]

#: The nodes that are called so: those that select, and take cotangents with rows in front
_CALLED = frozenset([f"{stem}Backward{k}" for stem in SELECTING for k in range(3)]) & BROADCAST - {
    "PowBackward0"
}


def call_on_values(node: Node, above: Sequence[PendingBlocks]) -> Sent | None:
    """Return the blocks of the inputs of a node that selects, by a call on the values of the one block that arrived.

    None where several arrived, or it has not a value for each entry of the whole tensor, where an input broadcasts, and
    where the walk is recorded or traced: zeros of their own are structure to what follows.
    """
    if node.name not in _CALLED or len(above) > 1 or len(above[0].blocks) > 1 or node.touches_complex:
        return None
    (block,) = above[0].blocks
    value, on, _, wrt = block
    own = [bare_label(map_) for map_, size in zip(wrt, node.shape, strict=True) if size > 1]
    sizes = [label.size for label in own if label is not None]
    if (
        not isinstance(value, Tensor)
        or sizes != [size for size in node.shape if size > 1]
        or not set(own) <= set(on)
    ):
        return None
    if len(set(own)) < len(own) or torch.is_grad_enabled() or is_transformed() or is_tracing():
        return None
    if any(edge is not None and node.into(k).shape != node.shape for k, edge in enumerate(node.inputs)):
        return None
    order = [*[dim for dim, label in enumerate(on) if label not in own], *map(on.index, own)]
    if order != sorted(order):
        value = value.permute(order)
    inner = value.shape
    rows = value.view(*inner[: len(on) - len(own)], *node.shape) if len(own) < len(wrt) else value
    sent = []
    for edge, result in zip(node.inputs, call(node, [rows]), strict=False):
        if edge is not None and result is not None:
            if result.shape != rows.shape:  # made without looking at the cotangent
                return None
            if result.layout is not torch.strided:  # of a sparse tensor
                return None
            if len(inner) < result.dim():
                result = result.view(inner)
            if order != sorted(order):
                result = result.permute([order.index(dim) for dim in range(len(order))])
            sent.append((edge, block._replace(value=result)))
    node.note = "explicit"
    return sent
