"""Pushing blocks through a node that has no explicit local Jacobian: call it on seeds.

A label tied along a dim that the op passes straight through rides along compressed: all its values share one
seed. Only the other labels cost seeds, so the size of a batch never multiplies the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from .._blocks.block import Block, identity, zeroed
from .._blocks.compose import compose
from .._blocks.cost import own_rows_pay, seeds_pay
from .._blocks.dense_views import stands_for_one
from .._blocks.domain import at_most, domain_of, hull, without
from .._blocks.maps import Affine, Label, Map, bare, labels_of, take
from .._blocks.merge import dense_block
from .._blocks.write import dense
from .._capture.tape import Meta, Node
from .._rules.registry import BatchDims, Local, is_linear
from .call_rows import call_rows


class RowsTooWideError(RuntimeError):
    """The rows to push through a node exceed the budget: they have to go through the graph in chunks."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``chunk`` bounds the rows pushed at once, ``row_bytes`` what the rows held at one node may take."""

    chunk: int | None = None
    row_bytes: int | None = None


NO_LIMITS = Limits()


def push(
    node: Node,
    slot: int,
    blocks: list[Block],
    out_shape: Sequence[int],
    batch_dims: Mapping[int, BatchDims],
    limits: Limits,
    scans: Mapping[int, tuple[int, int]],
) -> list[Local]:
    """Return the blocks of the inputs named in ``batch_dims``, from those of an output of the node.

    ``scans`` is as in `LocalJacobian`.
    """
    groups: dict[frozenset[int], list[int]] = {}
    for k, pairs in batch_dims.items():
        groups.setdefault(frozenset(p for p, _ in pairs), []).append(k)
    pushed: list[Local] = []
    for dims, inputs in groups.items():
        pairs_of = {k: batch_dims[k] for k in inputs}
        pushed += _push_group(node, slot, blocks, out_shape, dims, pairs_of, limits, scans)
    return pushed


class Seeded(NamedTuple):
    """A block, the dims of a node it is tied along, and the labels that need a seed for each of their values."""

    block: Block
    ride: frozenset[int]
    labels: tuple[Label, ...]

    @property
    def rows(self) -> int:
        """The number of seeds."""
        return prod(label.size for label in self.labels)


def seed_count(blocks: Sequence[Block], pairs: BatchDims, out_shape: Sequence[int]) -> int:
    """Return how many rows would be pushed through a node that passes some dims."""
    dims = frozenset(p for p, _ in pairs)
    return min(sum([_seeded(block, dims).rows for block in blocks]), prod(out_shape))


def _push_group(
    node: Node,
    slot: int,
    blocks: list[Block],
    out_shape: Sequence[int],
    dims: frozenset[int],
    pairs_of: dict[int, BatchDims],
    limits: Limits,
    scans: Mapping[int, tuple[int, int]],
) -> list[Local]:
    """Return what `push` does, for inputs to which the same dims pass straight."""
    meta, rows = node.outputs[slot], prod(out_shape)
    seeded = [_seeded(block, dims) for block in blocks]
    count = sum([each.rows for each in seeded])
    own = prod(size for dim, size in enumerate(meta.shape) if dim not in dims)
    if own_rows_pay(own, min(count, rows)) and is_linear(node):
        terms = _push_group(node, slot, [identity(meta.shape)], meta.shape, dims, pairs_of, limits, scans)
        products = [
            (t.input, compose(block, t.block, meta.shape, meta.device)) for t in terms for block in blocks
        ]
        return [Local(k, block) for k, block in products if block is not None]
    in_one = not seeds_pay(count, rows)
    if in_one:
        check_width(node, rows, limits)
        block = dense_block(blocks, out_shape, meta.shape, meta)
        seeded, count = [Seeded(block, frozenset(), tuple(block.on[: len(out_shape)]))], rows
    check_width(node, count, limits)
    seeds = [_seeds(each, meta) for each in seeded]
    results = call_rows(node, slot, seeds[0] if len(seeds) == 1 else torch.cat(seeds), pairs_of, limits.chunk)
    pushed, start = [], 0
    for each in seeded:
        parts = [None if result is None else result[start : start + each.rows] for result in results]
        pushed += _from_seeds(each, parts, pairs_of, scans, blocks if in_one else [each.block])
        start += each.rows
    return pushed


def _seeded(block: Block, dims: frozenset[int]) -> Seeded:
    ride = _rides(block, dims)
    return Seeded(block, ride, _seed_labels(block, ride))


def _seeds(seeded: Seeded, meta: Meta) -> Tensor:
    """Return the cotangents of a block, a row for each seed."""
    block, _, labels = seeded
    shown = Block(block.value, block.on, tuple(map(bare, labels)), block.wrt)
    written = dense([shown], [label.size for label in labels], meta.shape, meta)
    return written.reshape(seeded.rows, *meta.shape)


def _from_seeds(
    seeded: Seeded,
    results: Sequence[Tensor | None],
    pairs_of: Mapping[int, BatchDims],
    scans: Mapping[int, tuple[int, int]],
    above: Sequence[Block],
) -> list[Local]:
    """Return the blocks of the inputs, of what a node gives for the seeds of a block; it came of those ``above``."""
    found = []
    for k, pairs in pairs_of.items():
        result = results[k]
        if result is not None and len(result):
            tied = tuple((p, q) for p, q in pairs if p in seeded.ride)
            block = _tie(seeded.block, seeded.labels, result, tied)
            found.append(Local(k, _scanned(above, block, scans[k], pairs) if k in scans else block))
    return found


def check_width(node: Node, rows: int, limits: Limits) -> None:
    """Raise if rows through a node take more bytes than they may."""
    if limits.row_bytes is not None:
        widest = max(
            prod(meta.shape) for meta in (*node.outputs, *map(node.into, filter(node.needs, _inputs(node))))
        )
        if rows * widest * node.outputs[0].dtype.itemsize > limits.row_bytes:
            raise RowsTooWideError(f"{rows} rows of {widest} numbers at {node.name}")


def _inputs(node: Node) -> range:
    return range(len(node.inputs))


def _rides(block: Block, dims: frozenset[int]) -> frozenset[int]:
    """Return the dims along which the block's own labels can stay tied: each position stands for one value of them.

    Other dims may depend on the same labels (as where each sample pools at places of its own): what is pushed
    from one position of a dim that passes comes out at that position alone.
    """

    def can(map_: Map) -> bool:
        return type(map_) is Affine and (len(map_.terms) < 2 or stands_for_one(map_))

    return frozenset(dim for dim in dims if can(block.wrt[dim]))


def _seed_labels(block: Block, ride: frozenset[int]) -> tuple[Label, ...]:
    """Return the labels that need a seed for each of their values: those of the output that are neither tied nor free.

    A label that the output lacks is summed over: all its values stand in one seed.
    """
    tied = labels_of(tuple(block.wrt[dim] for dim in ride))
    needed = dict.fromkeys(block.on)
    needed.update(labels_of(tuple(map_ for dim, map_ in enumerate(block.wrt) if dim not in ride)))
    out = labels_of(block.out)
    return tuple(label for label in needed if label in out and label not in tied)


def _tie(block: Block, seeds: tuple[Label, ...], result: Tensor, pairs: BatchDims) -> Block:
    """Return the block of an input from the node's result on the seeds, read where the tied labels stand."""
    dims = tuple(Label(size) for size in result.shape[1:])
    value = result.reshape([label.size for label in seeds] + [label.size for label in dims])
    tied = {dims[q]: block.wrt[p] for p, q in pairs}
    value, on = take(value, seeds + dims, tied)
    return Block(value, on, block.out, tuple(tied.get(label, bare(label)) for label in dims))


def _scanned(above: Sequence[Block], found: Block, scan: tuple[int, int], pairs: BatchDims) -> Block:
    """Return a block that came of some above a scan, with the domain that all of them leave it."""
    reach = []
    for block in above:
        forms = domain_of(block)
        for p, q in (scan, *pairs):
            forms += at_most(found.wrt[q], block.wrt[p])
        for p, q in pairs:
            forms += at_most(block.wrt[p], found.wrt[q])
        kept = labels_of(block.out + found.wrt)
        gone = [label for form in forms for label in form.labels if label not in kept]
        reach.append(zeroed(Block(1.0, (), block.out, found.wrt), domain=without(forms, gone)))
    return hull(reach, found)
