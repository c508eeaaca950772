"""Blocks through a node that has no explicit local Jacobian, upward, by its backward formula alone.

The formula g = Jᵀu is linear in the cotangent u. Recorded once, its own graph is a tape from u to g, and the
reverse walk on that tape takes transposed blocks Tᵀ at g to Tᵀ Jᵀ = (J T)ᵀ at u: a tangent costs what a
cotangent does, and the rules of the formula's ops keep its structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .._blocks.block import Block, identity, zeroed
from .._blocks.block_views import swapped
from .._blocks.compose import compose
from .._blocks.cost import rows_of_node_pay
from .._blocks.domain import domain_of
from .._capture.capture import Captured, capture
from .._capture.tape import Node, Tape
from .._plan.price import NODE, mapped
from .._plan.recording import objects, unrecorded
from .._rules.call import call, fit
from .._rules.registry import BatchDims
from .._rules.transposed import transposed
from .ownership import all_borrowed, owned
from .reverse import Pending, walk
from .seeds import Limits, push

#: The transposed blocks at one tensor of the graph: ``carried[input]``
Carried: TypeAlias = dict[int, list[Block]]


#: The time to record a formula at every run, in nodes of a walk by structure
FORMULA_NODES = 12


class Sent(NamedTuple):
    """A transposed block on its way to a node's output ``slot``, of the function's input ``input``; None is zero."""

    slot: int
    input: int
    block: Block | None


def push_up(
    node: Node,
    slot: int,
    batch_dims: Mapping[int, BatchDims],
    arrived: Mapping[int, Carried],
    in_shapes: Sequence[Sequence[int]],
    limits: Limits,
    scans: Mapping[int, tuple[int, int]],
) -> list[Sent]:
    """Return what the inputs named in ``batch_dims`` send to an output, from what arrived at them.

    What a scan leaves out is dropped, whatever it meets further up.
    """
    by_rows: dict[int, Carried] = {}
    by_formula: dict[int, Carried] = {}
    for k, carried in arrived.items():
        own = prod(
            size for dim, size in enumerate(node.outputs[slot].shape) if dim not in dict(batch_dims[k])
        )
        columns = sum(prod(in_shapes[number]) for number in carried)
        # A Python backward may leave the graph, and then its own graph would say zero.
        rows_only = isinstance(node.fn, BackwardCFunction)
        (by_rows if rows_only or rows_of_node_pay(own, columns) else by_formula)[k] = carried
    sent: list[Sent] = []
    if by_formula:
        try:
            sent += _by_formula(node, slot, by_formula, in_shapes, limits)
        except RuntimeError:  # a formula without a derivative of its own
            by_rows.update(by_formula)
    if by_rows:
        sent += _by_rows(node, slot, {k: batch_dims[k] for k in by_rows}, by_rows, limits, scans)
    if scans:
        return [Sent(at, k, block and zeroed(block, True, domain_of(block))) for at, k, block in sent]
    return sent


def _by_rows(
    node: Node,
    slot: int,
    batch_dims: Mapping[int, BatchDims],
    arrived: Mapping[int, Carried],
    limits: Limits,
    scans: Mapping[int, tuple[int, int]],
) -> list[Sent]:
    """Return the node's own Jacobian, called on seeds for the entries of its output that it mixes, and composed."""
    meta = node.outputs[slot]
    sent = []
    for term in push(node, slot, [identity(meta.shape)], meta.shape, batch_dims, limits, scans):
        local = swapped(term.block)
        shape, _, device = node.into(term.input)
        sent += [
            Sent(slot, number, compose(block, local, shape, device))
            for number, blocks in arrived[term.input].items()
            for block in blocks
        ]
    return sent


def _formula(node: Node, slot: int, wanted: Sequence[int]) -> Captured:
    """Return the graph of the backward formula from a cotangent of an output to those of the inputs wanted."""
    shape, dtype, device = node.outputs[slot]

    def formula(leaves: list[Tensor]) -> tuple[list[Tensor], list[int]]:
        cotangents: list[Tensor | None] = [None] * len(node.outputs)
        cotangents[slot] = leaves[0]
        results = call(node, cotangents, wanted)
        present = {k: result for k in wanted if (result := results[k]) is not None}
        # Nothing may be present; functorch wants at least one output.
        return [leaves[0], *(fit(result, node.into(k)) for k, result in present.items())], list(present)

    return capture(formula, [torch.ones(shape, dtype=dtype, device=device)])


def _nodes(node: Node, slot: int, wanted: Sequence[int]) -> list[Any]:
    return _formula(node, slot, wanted).graph.nodes


def _by_formula(
    node: Node,
    slot: int,
    arrived: Mapping[int, Carried],
    in_shapes: Sequence[Sequence[int]],
    limits: Limits,
) -> list[Sent]:
    found: list[tuple[Tape, Pending]] = []
    wanted = []
    for k, carried in arrived.items():
        tape = transposed(node, k)
        if tape is None:
            wanted.append(k)
        else:
            found.append(
                (tape, {(tape.nodes[0], 0): {number: [*blocks] for number, blocks in carried.items()}})
            )
    if wanted:
        found.append(_recorded(node, slot, {k: arrived[k] for k in wanted}))
    return [
        Sent(slot, number, block)
        for tape, pending in found
        for number, (blocks,) in enumerate(walk(tape, pending, in_shapes, limits))
        for block in owned(blocks, all_borrowed(tape))
    ]


def _recorded(node: Node, slot: int, arrived: Mapping[int, Carried]) -> tuple[Tape, Pending]:
    """Return the tape of a backward formula, and the blocks that begin at its outputs."""
    with unrecorded():
        recorded = _formula(node, slot, tuple(arrived))
    price = FORMULA_NODES * NODE + mapped(1, node.numel)
    objects(partial(_nodes, slot=slot, wanted=tuple(arrived)), (node,), recorded.graph.nodes, price)
    pending: Pending = {}
    for k, end in zip(recorded.extra, recorded.tape.outputs[1:], strict=True):
        if end is None:  # as of a sparse tensor's values: a formula that is not recorded would say zero
            raise NotImplementedError(f"{node.name}: its backward formula has no graph of its own")
        for number, blocks in arrived[k].items():
            pending.setdefault(end, {}).setdefault(number, []).extend(blocks)
    return recorded.tape, pending
