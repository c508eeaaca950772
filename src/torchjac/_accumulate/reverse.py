"""The reverse walk: from the outputs down, each node's local Jacobian composed with the blocks above it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from .._blocks.batched import full_between, held_between, shared_dims
from .._blocks.block import Block, identity, stored, tables_to
from .._blocks.compose import compose
from .._blocks.compose_windows import compose_windowed
from .._blocks.cost import SOME_BLOCKS, one_pays
from .._blocks.merge import dense_block, merge
from .._blocks.tracing import is_tracing
from .._blocks.unify import CannotJoinError
from .._blocks.window_law import window_law
from .._blocks.windowed import Windowed, banded, merge_windowed, plain
from .._capture.tape import Edge, Meta, Node, Tape
from .._rules.nnz_estimate import is_multiplied
from .._rules.registry import Local, LocalJacobian, local_jacobian, may_be_nonlinear, opaque
from .._rules.vjp_support import all_can_vmap, engine_refuses, needs_own_vjp
from .cheapest_terms import choose
from .engine_rows import finish_rows
from .progress import track
from .report import PendingBlocks, Report, note_step
from .seeds import NO_LIMITS, Limits, push
from .tape_costs import dense_is_cheaper, shares_are_cheaper
from .value_cotangents import call_on_values
from .whole_rows import push_rows

#: The blocks of every output with respect to every input: ``[output][input]``
WalkedBlocks: TypeAlias = list[list[list[Block]]]

#: The Jacobian blocks that wait at an output of a node: ``pending[node, slot][output]``
Pending: TypeAlias = dict[Edge, dict[int, list[Block]]]


def accumulate(
    tape: Tape,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits = NO_LIMITS,
    report: Report | None = None,
) -> WalkedBlocks:
    """Return the blocks of every output with respect to every input: ``blocks[output][input]``.

    Where the rows held at a node are limited, the caller wants dense rows in the end: once nothing else is
    left, PyTorch's engine takes them the rest of the way. A report, if given, gets a step for each node. The blocks
    may hold tensors of the caller's: see `owned`.

    Raises:
        RowsTooWideError: where an op without structure needs more rows at once than the limit.
    """
    pending: Pending = {}
    for number, end in enumerate(tape.outputs):
        if end is not None:
            pending.setdefault(end, {}).setdefault(number, []).append(identity(tuple(out_shapes[number])))
    return walk(tape, pending, out_shapes, limits, report)


def walk(
    tape: Tape,
    pending: Pending,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits = NO_LIMITS,
    report: Report | None = None,
) -> WalkedBlocks:
    """Return the pending blocks of a tape taken down to its inputs; `accumulate` begins with identities."""
    sparse = limits.row_bytes is None and not is_tracing()
    # Each op of a program is compiled; where the walk is walked in turn (for a Hessian), what is zero must stay so.
    by_ops = limits.row_bytes is not None and is_tracing() and not torch.is_grad_enabled()
    before = now = 0
    for position, node in enumerate(track(tape.nodes, "nodes")):
        arrived = _take(node, pending, out_shapes)
        if not arrived:
            continue
        above = [_merged(lot, node.outputs[lot.slot], sparse, by_ops) for lot in arrived]
        before, now = now, sum([len(lot.blocks) for lot in above])
        if may_be_nonlinear(node):
            above = [_plain(lot, node.outputs[lot.slot], sparse) for lot in above]
        sent = call_on_values(node, above)
        if sent is not None:
            for edge, block in sent:
                _send(edge, above[0].output, block, node.outputs[0].device, pending)
            note_step(report, node, arrived, above)
            continue
        known = local_jacobian(node)
        if limits.row_bytes is not None and now > 1:
            above = [_in_shared_dims(lot, tape, position, min(before, now), out_shapes) for lot in above]
            now = sum([len(lot.blocks) for lot in above])
        if limits.row_bytes is not None and (
            _only_rows(known, above, pending, out_shapes)
            or (now > SOME_BLOCKS and dense_is_cheaper(tape, position, min(before, now), out_shapes))
        ):
            rest = tape.nodes[position:]
            if tape.inputs_apart and _goes_by_engine(rest):
                for lot in above:
                    pending.setdefault((node, lot.slot), {})[lot.output] = lot.blocks
                _to_rows(pending, tape, out_shapes)
                finish_rows(pending, tape, rest, out_shapes, limits.chunk)
                break
        if may_be_nonlinear(node):
            for edge, output, block in push_rows(node, above, limits):
                _send(edge, output, block, node.outputs[0].device, pending)
        else:
            _step(node, known, above, pending, out_shapes, limits, sparse)
        note_step(report, node, arrived, above)
        del arrived, above, known  # what a node held goes before the blocks of the next one are added up
    answer: WalkedBlocks = [[[] for _ in tape.inputs] for _ in out_shapes]
    for node, number in tape.inputs.items():
        for lot in _take(node, pending, out_shapes):
            lot = _merged(lot, node.outputs[0], sparse)
            answer[lot.output][number] = _plain(lot, node.outputs[0], sparse, by_ops).blocks
    return answer


def _take(node: Node, pending: Pending, out_shapes: Sequence[Sequence[int]]) -> list[PendingBlocks]:
    """Return the pending blocks of a node."""
    lots = []
    for slot, meta in enumerate(node.outputs):
        found = pending.pop((node, slot), None)
        if found is not None:
            for output, blocks in found.items():
                lots.append(PendingBlocks(slot, output, out_shapes[output], meta.shape, blocks))
    return lots


def _only_rows(
    known: LocalJacobian,
    above: Sequence[PendingBlocks],
    pending: Pending,
    out_shapes: Sequence[Sequence[int]],
) -> bool:
    """Return whether nothing but dense rows is left, at a node that mixes all dims and anywhere else."""
    if not known.batch_dims or any(known.batch_dims.values()):
        return False
    return all(lot.is_rows() for lot in above) and all(
        PendingBlocks(slot, output, out_shapes[output], node.outputs[slot].shape, blocks).is_rows()
        for (node, slot), lists in pending.items()
        for output, blocks in lists.items()
    )


def _in_shared_dims(
    lot: PendingBlocks, tape: Tape, position: int, blocks: int, out_shapes: Sequence[Sequence[int]]
) -> PendingBlocks:
    """Return the blocks at a node as one, full between the dims that all share, where that is faster from there on."""
    slot, _, out_shape, wrt_shape, found = lot
    node = tape.nodes[position]
    apart = len(found) > 1 and not any(type(block) is Windowed for block in found)
    pairs = shared_dims(found, out_shape, wrt_shape) if apart else ()
    share = prod([out_shape[d] for d, _ in pairs])
    if share < 2:
        return lot
    # Side by side, blocks hold as much as one; what a product makes of each of them holds more, and is written twice.
    fill = is_multiplied(node.name) and held_between(found, pairs, out_shape, wrt_shape) <= sum(
        map(stored, found)
    )
    if fill or (
        min(blocks, len(found)) > SOME_BLOCKS
        and shares_are_cheaper(tape, position, min(blocks, len(found)), out_shapes, share)
    ):
        return lot._replace(blocks=[full_between(found, pairs, out_shape, wrt_shape, node.outputs[slot])])
    return lot


def _goes_by_engine(nodes: Sequence[Node]) -> bool:
    """Return whether PyTorch's engine takes rows through some nodes in one batch, and rightly."""
    names = {node.name for node in nodes}
    return all_can_vmap(names) and not engine_refuses(nodes) and not needs_own_vjp(names)


def _to_rows(pending: Pending, tape: Tape, out_shapes: Sequence[Sequence[int]]) -> None:
    """Make the pending blocks of nodes, but for the inputs, dense rows."""
    for (node, slot), waiting in pending.items():
        if node not in tape.inputs:
            meta = node.outputs[slot]
            for output, blocks in waiting.items():
                if not PendingBlocks(slot, output, out_shapes[output], meta.shape, blocks).is_rows():
                    waiting[output] = [dense_block(plain(blocks), out_shapes[output], meta.shape, meta)]


def _step(
    node: Node,
    known: LocalJacobian,
    above: Sequence[PendingBlocks],
    pending: Pending,
    out_shapes: Sequence[Sequence[int]],
    limits: Limits,
    sparse: bool,
) -> None:
    """Move every block from the node's outputs to its inputs."""
    inputs = node.inputs
    for lot in above:
        slot, output, _, _, blocks = lot
        batch_dims, terms = known.others.get(slot, known.batch_dims), known.locals
        if known.alternatives:
            batch_dims, alternatives = choose(node, slot, known, blocks, out_shapes[output])
            terms = [*terms, *alternatives]
        shape, _, device = node.outputs[slot]
        reached = [
            (term, edge)
            for term in terms
            if term.slot == slot and term.input < len(inputs) and (edge := inputs[term.input]) is not None
        ]
        if batch_dims or not _keeps_windows(blocks, reached, shape):
            blocks = _plain(lot, node.outputs[slot], sparse).blocks
        products: list[tuple[Edge, Block]] = []
        try:
            for (_, local, _, selects), edge in reached:
                for block in blocks:
                    if type(block) is Windowed or type(local) is Windowed:
                        made = compose_windowed(block, local, shape, _shape_of(edge), device, selects)
                        products += [(edge, each) for each in made]
                        continue
                    product = compose(block, local, shape, device, selects)
                    if product is not None:
                        products.append((edge, product))
        except CannotJoinError:
            products, batch_dims = [], opaque(node).batch_dims
        for edge, product in products:
            _send(edge, output, product, device, pending)
        if batch_dims:
            for term in push(node, slot, blocks, out_shapes[output], batch_dims, limits, known.scans):
                edge = inputs[term.input]
                _send(edge, output, term.block, device, pending)  # type: ignore[arg-type]  # a needed input


def _shape_of(edge: Edge) -> Sequence[int]:
    node, slot = edge
    return node.outputs[slot].shape


def _keeps_windows(
    blocks: Sequence[Block], terms: Sequence[tuple[Local, Edge]], shape: Sequence[int]
) -> bool:
    """Return whether all taps of blocks that have windows go through a node at once."""
    return all(
        window_law(block, term.block, shape, _shape_of(edge)) is not None
        for block in blocks
        if type(block) is Windowed
        for term, edge in terms
    )


def _send(edge: Edge, output: int, block: Block, origin: torch.device, pending: Pending) -> None:
    """Let a block wait at a tensor, in its dtype and on its device; it comes from a device."""
    node, slot = edge
    _, dtype, device = node.outputs[slot]
    value = block.value
    if isinstance(value, Tensor) and (value.dtype != dtype or value.device != device):
        if value.is_complex() and not dtype.is_complex:
            value = value.real
        block = block._replace(value=value.to(device, dtype))
    if origin != device:
        block = tables_to(block, device)
    waiting = pending.get(edge)
    if waiting is None:
        pending[edge] = {output: [block]}
    elif output in waiting:
        waiting[output].append(block)
    else:
        waiting[output] = [block]


def _merged(lot: PendingBlocks, meta: Meta, sparse: bool, by_ops: bool = False) -> PendingBlocks:
    """Return the blocks at a tensor in fewer; ``by_ops``, where each op is compiled, in one if it is small."""
    if len(lot.blocks) < 2:
        return lot
    others = [block for block in lot.blocks if type(block) is not Windowed]
    blocks = merge(others, lot.out_shape, lot.wrt_shape, meta, sparse)
    if len(others) < len(lot.blocks):
        blocks = [*blocks, *merge_windowed([block for block in lot.blocks if type(block) is Windowed])]
    if by_ops and one_pays(len(blocks), prod(lot.out_shape) * prod(lot.wrt_shape)):
        blocks = [dense_block(plain(blocks), lot.out_shape, lot.wrt_shape, meta)]
    return lot._replace(blocks=blocks)


def _plain(lot: PendingBlocks, meta: Meta, sparse: bool, by_ops: bool = False) -> PendingBlocks:
    """Return the blocks at a tensor without windows; ``by_ops``, where each op is compiled, as one."""
    if not any(type(block) is Windowed for block in lot.blocks):
        return lot
    blocks = lot.blocks
    if by_ops:
        blocks = [banded(each, lot.wrt_shape) if type(each) is Windowed else each for each in blocks]
    return _merged(lot._replace(blocks=plain(blocks)), meta, sparse, by_ops)
