"""Terms or calls: where a rule offers both, the one that takes less arithmetic for the blocks that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from .._blocks.block import Block, entries, stored
from .._blocks.cost import joins_pay, terms_pay
from .._blocks.maps import Gather
from .._blocks.windowed import tap_laws
from .._capture.tape import Node
from .._rules.registry import BatchDims, Local, LocalJacobian, TapsCost, TermCost
from .seeds import seed_count


def choose(
    node: Node, slot: int, known: LocalJacobian, blocks: Sequence[Block], out_shape: Sequence[int]
) -> tuple[Mapping[int, BatchDims], list[Local]]:
    """Return the inputs left to calls, and the terms of those that a rule spells and that are cheaper so."""
    calls: dict[int, BatchDims] = {}
    chosen: list[Local] = []
    each = tap_laws(blocks)
    for k, pairs in known.others.get(slot, known.batch_dims).items():
        spelling = known.alternatives[k](slot, blocks) if k in known.alternatives else None
        if spelling is None or not _pay(
            spelling, blocks, each, seed_count(each, pairs, out_shape), prod(out_shape)
        ):
            calls[k] = pairs
        elif isinstance(spelling, TapsCost):
            chosen.append(Local(k, spelling.at_once, slot))
        else:
            chosen += spelling.make()
    node.note = "independent" if calls else "explicit"
    return calls, chosen


def choose_up(
    node: Node,
    slot: int,
    known: LocalJacobian,
    arrived: Mapping[int, Mapping[int, Sequence[Block]]],
    columns: int,
) -> tuple[Mapping[int, BatchDims], list[Local]]:
    """Return the same for transposed blocks on the way up, at a node's inputs, for a number of columns."""
    calls: dict[int, BatchDims] = {}
    chosen: list[Local] = []
    for k, pairs in known.others.get(slot, known.batch_dims).items():
        blocks = [block for carried in arrived.get(k, {}).values() for block in carried]
        spelling = known.alternatives[k](slot, blocks) if k in known.alternatives and blocks else None
        if spelling is not None:
            named = sum(map(entries, blocks)) * spelling.entries // max(prod(node.into(k).shape), 1)
            if terms_pay(spelling.terms * len(blocks), named, columns * spelling.entries):
                chosen += spelling.make()
                continue
        calls[k] = pairs
    return calls, chosen


def _pay(spelling: TermCost, blocks: Sequence[Block], each: Sequence[Block], rows: int, out: int) -> bool:
    """Return whether terms pay for some blocks; ``each`` are the same with their taps apart."""
    # What one number scales is multiplied as it is held, whatever entries it then stands for.
    named = sum(map(stored, blocks)) if spelling.scales else sum(map(entries, each)) * spelling.inner
    called = rows * spelling.entries
    # A table met by a part of its range is matched by positions, and no label of it stays tied.
    if not spelling.whole and any(type(map_) is Gather for block in blocks for map_ in block.wrt):
        return rows == out and joins_pay(named, called)
    products = spelling.terms * len(blocks)
    if isinstance(spelling, TapsCost):  # of one block at once; those of several may have to go on apart
        products += 1 - spelling.terms
    return terms_pay(products, named, called)
