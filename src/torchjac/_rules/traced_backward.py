"""A write whose arguments Python cannot see, by the graph of the node's own call.

    g = Jᵀu is linear in the cotangent u, so ∂g/∂u = Jᵀ: the blocks of the recorded formula, their ends swapped.

A write that multiplies (`v.mul_(w)` for a view v) calls the formulas of the view, of the product and of a plain write,
each of which has a local Jacobian. The graph is that of a level of functorch: whatever the node saved is a constant
there, and its own history is no part of the graph.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from .._blocks.block import Block, identity
from .._blocks.block_views import swapped
from .._blocks.compose import compose
from .._blocks.tracing import is_tracing
from .._capture.capture import Captured, capture_at_level
from .._capture.tape import Edge, Node
from .call import call, fit
from .registry import Local, LocalJacobian, local_jacobian
from .view_assignment import MOVING, apart, moved

#: A cotangent held at a tensor of the graph: the number of a result, the block, and whether its zeros drop infinities
_Waiting: TypeAlias = list[tuple[int, Block, bool]]


def composed(node: Node) -> list[Local] | None:
    """Return the terms of a write, or None where its formula is not made of ops that have terms.

    Example: x (5,), w (3,), x[1:-1] *= w: ∂out/∂x is three blocks with 3 numbers in all, ∂out/∂w is one with 3.
    """
    if is_tracing() or torch.is_inference_mode_enabled():
        return None
    given = apart(node.outputs[0])
    if given is None:
        return None
    needed = [k for k in range(len(node.inputs)) if node.needs(k)]

    def formula(leaves: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        results = call(node, leaves)
        present = [(k, result) for k in needed if (result := results[k]) is not None]
        return [fit(result, node.into(k)) for k, result in present], [k for k, _ in present]

    try:
        recorded = capture_at_level(formula, [given])
    except RuntimeError:  # saving through hooks
        return None
    found = _down(node, recorded)
    if found is None:
        return None
    return [Local(recorded.extra[k], swapped(block), selects=drops) for k, block, drops in found]


def _down(node: Node, recorded: Captured) -> _Waiting | None:
    """Return the local Jacobians of a formula's nodes composed from its results down to the cotangent."""
    tape = recorded.tape
    pending: dict[Edge, _Waiting] = {}
    for number, (end, result) in enumerate(zip(tape.outputs, recorded.outputs, strict=True)):
        if end is not None:
            pending.setdefault(end, []).append((number, identity(tuple(result.shape)), False))
    for inner in tape.nodes:
        waiting = pending.pop((inner, 0), [])
        known = _known(inner) if waiting else LocalJacobian()
        if known is None or known.batch_dims:
            return None
        for local in known.locals:
            edge = inner.inputs[local.input]
            if edge is None:
                continue
            for number, block, drops in waiting:
                if drops != local.selects and _may_be_zero(block) and _may_be_zero(local.block):
                    return None  # one block would hold zeros that drop what they meet, and others
                device = inner.outputs[0].device
                product = compose(block, local.block, inner.shape, device, local.selects)
                if product is not None:
                    pending.setdefault(edge, []).append((number, product, drops or local.selects))
        node.borrowed += inner.borrowed
    (start,) = tape.inputs
    return pending.get((start, 0), [])


def _known(inner: Node) -> LocalJacobian | None:
    """Return what is known of a node of the formula: of a view or a write that it moves entries, or nothing."""
    if len(inner.outputs) > 1:
        return None
    if inner.name in MOVING:
        terms = moved(inner)
        return None if terms is None else LocalJacobian(terms)
    return local_jacobian(inner)


def _may_be_zero(block: Block) -> bool:
    return isinstance(block.value, Tensor)
