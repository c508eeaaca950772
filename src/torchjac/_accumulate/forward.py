"""The forward walk: from the inputs up, each node's local Jacobian composed with the blocks below it.

What is carried at a tensor t is the transposed block (∂t/∂x)ᵀ, so that one law of composition serves both
directions: (J T)ᵀ = Tᵀ Jᵀ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod

from .._blocks.block import Block, Zeroed, fitted, identity, zeroed
from .._blocks.block_views import swapped
from .._blocks.compose import compose
from .._blocks.cost import one_pays
from .._blocks.domain import domain_of
from .._blocks.merge import dense_block, merge
from .._blocks.tracing import is_tracing
from .._blocks.unify import CannotJoinError
from .._capture.tape import Edge, Meta, Node, Tape
from .._rules.registry import BatchDims, Local, is_linear, local_jacobian, opaque
from .cheapest_terms import choose_up
from .progress import track
from .report import PendingBlocks, Report, note_step
from .seeds import NO_LIMITS, Limits
from .transpose_jvp import Carried, Sent, push_up


def accumulate_forward(
    tape: Tape,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits = NO_LIMITS,
    report: Report | None = None,
) -> list[list[list[Block]]]:
    """Return the blocks of every output by every input: ``blocks[output][input]``, as `accumulate` finds them.

    The tape must be one that `goes_forward`. A report gets a step for each node, with the blocks that left it.

    Raises:
        RowsTooWideError: where an op without structure needs more rows at once than the limit.
    """
    in_shapes = [node.shape for node in tape.inputs]
    carried: dict[Edge | None, Carried] = {
        (node, 0): {number: [identity(tuple(node.shape))]} for node, number in tape.inputs.items()
    }
    readers = Counter(edge for node in tape.nodes for edge in node.inputs if edge is not None)
    readers.update(end for end in tape.outputs if end is not None)
    for node in track(tape.nodes[::-1], "nodes"):
        arrived = {k: carried[edge] for k, edge in enumerate(node.inputs) if edge in carried}
        if arrived:
            slots = [slot for slot in range(len(node.outputs)) if readers[node, slot]]
            before, after = [], []
            for (slot, number), blocks in _through(node, slots, arrived, in_shapes, limits).items():
                meta = node.outputs[slot]
                before.append(PendingBlocks(slot, number, in_shapes[number], meta.shape, blocks))
                after.append(_merged(before[-1], meta, limits))
                carried.setdefault((node, slot), {})[number] = after[-1].blocks
            note_step(report, node, before, after)
        for edge in node.inputs:
            if edge is not None:
                readers[edge] -= 1
                if not readers[edge]:
                    carried.pop(edge, None)
    return [
        [
            [swapped(block) for block in carried.get(end, {}).get(number, ())]
            for number in tape.inputs.values()
        ]
        for end in tape.outputs
    ]


def goes_forward(tape: Tape) -> bool:
    """Return whether a tape can be walked forward: tangents pass those nodes alone that are linear in cotangents."""
    return all(map(is_linear, tape.nodes))


def _through(
    node: Node,
    slots: Sequence[int],
    arrived: dict[int, Carried],
    in_shapes: Sequence[Sequence[int]],
    limits: Limits,
) -> dict[tuple[int, int], list[Block]]:
    """Return the transposed blocks ``[slot, input]`` at a node's outputs, from those at its own inputs."""
    known = local_jacobian(node)
    columns = sum(
        [prod(in_shapes[number]) for number in {n for carried in arrived.values() for n in carried}]
    )
    terms = list(known.locals)
    calls: dict[int, Mapping[int, BatchDims]] = {}
    for slot in slots:
        calls[slot], chosen = choose_up(node, slot, known, arrived, columns)
        terms += chosen
    sent: list[Sent] = []
    try:
        for term in terms:
            if term.input in arrived and term.slot in slots:
                local = swapped(term.block)
                shape, _, device = node.into(term.input)
                sent += [
                    Sent(term.slot, number, _marked(compose(block, local, shape, device, term.selects), term))
                    for number, blocks in arrived[term.input].items()
                    for block in blocks
                ]
    except CannotJoinError:
        sent, calls = [], dict.fromkeys(slots, opaque(node).batch_dims)
    for slot, batch_dims in calls.items():
        if batch_dims:
            below = {k: arrived[k] for k in batch_dims if k in arrived}
            sent += push_up(node, slot, batch_dims, below, in_shapes, limits, known.scans)
    found: dict[tuple[int, int], list[Block]] = {}
    for slot, number, block in sent:
        if block is not None:
            meta = node.outputs[slot]
            found.setdefault((slot, number), []).append(fitted(block, meta.dtype, meta.device))
    return found


def _marked(block: Block | None, term: Local) -> Block | None:
    """Return the block, told to drop with its zeros what it meets further up, if a term selects."""
    return zeroed(block, True, domain_of(block)) if block is not None and term.selects else block


def _merged(lot: PendingBlocks, meta: Meta, limits: Limits) -> PendingBlocks:
    blocks = merge(
        lot.blocks, lot.out_shape, lot.wrt_shape, meta, limits.row_bytes is None and not is_tracing()
    )
    if all(type(block) is Zeroed and block.drops for block in lot.blocks):
        blocks = [zeroed(block, True, domain_of(block)) for block in blocks]
    # Few inputs on the way to many outputs are often taken apart and put together: a block for each number.
    if limits.row_bytes is not None and one_pays(len(blocks), prod(lot.out_shape) * prod(lot.wrt_shape)):
        blocks = [dense_block(blocks, lot.out_shape, lot.wrt_shape, meta)]
    return lot._replace(blocks=blocks)
