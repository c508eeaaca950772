"""The reverse walk: from the outputs down, each node's local Jacobian composed with the blocks above it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._blocks.block import Block, identity
from .._blocks.compose import compose
from .._blocks.merge import merge
from .._blocks.unify import CannotJoinError
from .._capture.tape import Meta, Node, Tape
from .._rules.registry import local_jacobian, opaque
from .seeds import push

Pending = dict[tuple[Node, int], dict[int, list[Block]]]


def accumulate(
    tape: Tape, out_shapes: Sequence[Sequence[int]], chunk: int | None
) -> list[list[list[Block]]]:
    """The blocks of every output with respect to every input: ``blocks[output][input]``."""
    pending: Pending = {}
    for number, end in enumerate(tape.outputs):
        if end is not None:
            pending.setdefault(end, {}).setdefault(number, []).append(identity(out_shapes[number]))
    for node in tape.nodes:
        _step(node, pending, out_shapes, chunk)
    answer: list[list[list[Block]]] = [[[] for _ in tape.inputs] for _ in out_shapes]
    for node, number in tape.inputs.items():
        for output, blocks in pending.get((node, 0), {}).items():
            answer[output][number] = _merged(blocks, out_shapes[output], node.outputs[0])
    return answer


def _step(node: Node, pending: Pending, out_shapes: Sequence[Sequence[int]], chunk: int | None) -> None:
    """Move every block from the node's outputs to its inputs."""
    above = [
        (slot, output, _merged(blocks, out_shapes[output], meta))
        for slot, meta in enumerate(node.outputs)
        for output, blocks in pending.pop((node, slot), {}).items()
    ]
    above = [(slot, output, blocks) for slot, output, blocks in above if blocks]
    if not above:
        return
    known = local_jacobian(node)
    for slot, output, blocks in above:
        passes = known.passes
        terms = [term for term in known.locals if term.slot == slot and node.needs(term.input)]
        if terms:
            shape, _, device = node.outputs[slot]
            try:
                products = [
                    (term.input, compose(block, term.block, shape, device)) for block in blocks for term in terms
                ]
            except CannotJoinError:
                products, passes = [], opaque(node).passes
            for k, product in products:
                _send(node, k, output, product, pending)
        if passes:
            for term in push(node, slot, blocks, out_shapes[output], passes, chunk):
                _send(node, term.input, output, term.block, pending)


def _send(node: Node, k: int, output: int, block: Block | None, pending: Pending) -> None:
    if block is None:
        return
    value, meta = block.value, node.into(k)
    if isinstance(value, Tensor) and (value.dtype != meta.dtype or value.device != meta.device):
        if value.is_complex() and not meta.dtype.is_complex:
            value = value.real
        block = block._replace(value=value.to(meta.device, meta.dtype))
    pending.setdefault(node.inputs[k], {}).setdefault(output, []).append(block)


def _merged(blocks: list[Block], out_shape: Sequence[int], meta: Meta) -> list[Block]:
    if len(blocks) < 2:
        return blocks
    return merge(blocks, out_shape, meta.shape, torch.empty(0, dtype=meta.dtype, device=meta.device))
