"""Blocks on one line: the same law over other ranges of its labels, as a shifted diagonal and a part of it.

Two blocks whose maps differ only in where their labels begin and end stand on one line of the Jacobian. A
stencil applied again and again makes many of them, one for each way between two points; where their ranges
join to a box they are one block, its value zero-padded where a part adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import chain
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._torch import tracer_mode
from .block import Block, TensorOptions, of_maps, stored
from .cost import is_long
from .maps import Affine, Gather, Label, Map, align
from .tracing import leaves_a_trail


class Ranged(NamedTuple):
    """A block with its labels in the order of its line, and where each begins."""

    block: Block
    labels: tuple[Label, ...]
    starts: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of each label."""
        return tuple([label.size for label in self.labels])


class DiagonalBox:
    """Blocks of one line whose ranges together fill a box; ``on`` are the labels its value will run over."""

    def __init__(self, first: Ranged) -> None:
        self.members = [first]
        self.starts, self.sizes = first.starts, first.sizes
        self.on = _on(first)
        self.stored = stored(first.block)

    def take(self, other: DiagonalBox, anyway: bool) -> bool:
        """Take another box in, if the two join to one and, unless ``anyway`` or alike, if that stores no more."""
        apart = [
            k
            for k, size in enumerate(self.sizes)
            if self.starts[k] != other.starts[k] or size != other.sizes[k]
        ]
        joined = _joined(self, other, apart)
        if joined is None:
            return False
        starts, sizes = joined
        on = self.on | other.on | set(apart)
        numbers = prod([sizes[k] for k in on]) if on else 0
        if apart and not anyway and numbers > self.stored + other.stored:
            return False
        self.members += other.members
        self.starts, self.sizes, self.on, self.stored = starts, sizes, on, numbers
        return True


def join_lines(blocks: Sequence[Block], like: TensorOptions) -> list[Block]:
    """Return the same sum, blocks of one line joined where their ranges form a box.

    Joined values are written out over the labels whose ranges differ. That must not store more numbers than
    before, unless the list stays long otherwise.
    """
    lines: dict[tuple[object, ...], list[DiagonalBox]] = {}
    for block in blocks:
        key, ranged = line(block)
        lines.setdefault(key, []).append(DiagonalBox(ranged))
    if len(lines) == len(blocks):
        return list(blocks)
    found = [_boxes(boxes, anyway=False) for boxes in lines.values()]
    if is_long(list(chain(*found))):
        found = [_boxes(boxes, anyway=True) for boxes in found]
    return [_sum(box, like) if len(box.members) > 1 else box.members[0].block for box in chain(*found)]


def _boxes(boxes: list[DiagonalBox], anyway: bool) -> list[DiagonalBox]:
    """Return the boxes, each taken into the first that it fits, the largest first, again and again."""
    if len(boxes) > 1:
        boxes = sorted(boxes, key=lambda box: -prod(box.sizes))
    while True:
        fewer: list[DiagonalBox] = []
        for one in boxes:
            if not any(box.take(one, anyway) for box in fewer):
                fewer.append(one)
        if len(fewer) in (1, len(boxes)):
            return fewer
        boxes = fewer


def line(block: Block) -> tuple[tuple[object, ...], Ranged]:
    """Return what blocks of one line have in common, and where on it the block stands."""
    _, _, out, wrt = block
    key, labels, starts = _place(out, wrt)
    return key, Ranged(block, labels, starts)


class LinePlace(NamedTuple):
    """Maps on their line: what all maps of the line have in common, their labels, and where each begins."""

    key: tuple[object, ...]
    labels: tuple[Label, ...]
    starts: tuple[int, ...]


@of_maps
def _place(out: tuple[Map, ...], wrt: tuple[Map, ...]) -> LinePlace:
    """Return each label begins where its first map puts it, digit by digit where a map has several.

    What is left of the offsets is the same for all maps of a line. Labels of index tensors run over the same
    range in all.
    """
    start: dict[Label, int] = {}
    number: dict[Label, int] = {}
    fixed = []
    for map_ in out + wrt:
        if type(map_) is Gather:
            for label in map_.labels:
                if label not in start:
                    start[label] = 0
                    fixed.append(label)
    key: list[object] = []
    for map_ in out + wrt:
        if type(map_) is Gather:
            key.append(id(map_.index))
            key += [number.setdefault(label, len(number)) for label in map_.labels]
            continue
        offset, terms = map_
        ordered: Sequence[tuple[Label, int]] = terms
        if len(terms) > 1:
            ordered = sorted(terms, key=lambda term: (term[0] not in start, -abs(term[1])))
        for label, stride in ordered:
            if label not in start:
                start[label] = offset // stride
            offset -= stride * start[label]
            key.append(number.setdefault(label, len(number)))
            key.append(stride)
        key.append(offset)
    labels = tuple(number)
    key += [(number[label], label.size) for label in fixed]
    return LinePlace(tuple(key), labels, tuple([start[label] for label in labels]))


def _on(one: Ranged) -> set[int]:
    return {one.labels.index(label) for label in one.block.on}


def _joined(
    a: DiagonalBox, b: DiagonalBox, apart: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the box of two boxes, if they fill it: one lies inside the other, or they differ along one label only."""
    starts, sizes = list(a.starts), list(a.sizes)
    if all(
        a.starts[k] <= b.starts[k] and b.starts[k] + b.sizes[k] <= a.starts[k] + a.sizes[k] for k in apart
    ):
        return a.starts, a.sizes
    if len(apart) > 1:
        return None
    (k,) = apart
    low = min(a.starts[k], b.starts[k])
    high = max(a.starts[k] + a.sizes[k], b.starts[k] + b.sizes[k])
    if high - low > a.sizes[k] + b.sizes[k]:
        return None
    starts[k], sizes[k] = low, high - low
    return tuple(starts), tuple(sizes)


def _sum(box: DiagonalBox, like: TensorOptions) -> Block:
    """Return the sum of blocks as one over their box."""
    first = box.members[0].block  # the largest: mostly the whole box already
    labels, out, wrt = _move(first.out, first.wrt, box.starts, box.sizes)
    on = sorted(box.on)
    value = _values(box, on, like, *[one.block.value for one in box.members])
    return Block(value, tuple([labels[k] for k in on]), out, wrt)


@of_maps
def _move(
    out: tuple[Map, ...], wrt: tuple[Map, ...], starts: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[tuple[Label, ...], tuple[Map, ...], tuple[Map, ...]]:
    """Return maps moved along their line to a box, and their labels there."""
    _, old, begin = _place(out, wrt)
    if starts == begin and sizes == tuple([label.size for label in old]):
        return old, out, wrt
    labels = tuple(
        [label if label.size == size else Label(size) for label, size in zip(old, sizes, strict=True)]
    )
    shift = {
        label: (new, at - before) for label, new, at, before in zip(old, labels, starts, begin, strict=True)
    }
    moved = type(out)([_moved(map_, shift) for map_ in out])
    return labels, moved, moved if wrt is out else type(wrt)([_moved(map_, shift) for map_ in wrt])


def _moved(map_: Map, shift: dict[Label, tuple[Label, int]]) -> Map:
    if type(map_) is Gather:
        return Gather(map_.index, tuple([shift[label][0] for label in map_.labels]))
    return Affine(
        map_.offset + sum([stride * shift[label][1] for label, stride in map_.terms]),
        tuple([(shift[label][0], stride) for label, stride in map_.terms]),
    )


def _values(
    box: DiagonalBox, on: Sequence[int], like: TensorOptions, *values: Tensor | float
) -> Tensor | float:
    """Return the members' values over the labels ``on`` of the box, added where each stands."""
    if not on:
        return sum(values)
    parts = [(one, _spread(one, value, on)) for one, value in zip(box.members, values, strict=True)]
    tensors = [part for _, part in parts if isinstance(part, Tensor)]
    dtype = reduce(torch.promote_types, [part.dtype for part in tensors]) if tensors else like.dtype
    shape = [box.sizes[k] for k in on]
    if tracer_mode("PROXY") is not None or leaves_a_trail(tensors):
        terms = []
        for one, part in parts:
            sizes = [one.sizes[k] for k in on]
            if not isinstance(part, Tensor):
                part = torch.full((), part, dtype=dtype, device=like.device)
            margins: list[int] = []
            for k, size in zip(reversed(on), reversed(sizes), strict=True):
                before = one.starts[k] - box.starts[k]
                margins += [before, box.sizes[k] - before - size]
            terms.append(pad(part.expand(sizes), margins) if any(margins) else part.expand(sizes))
        return reduce(torch.add, terms)
    total: Tensor | None = None
    for one, part in parts:
        sizes = [one.sizes[k] for k in on]
        if total is None and sizes == shape and isinstance(part, Tensor):
            total = part.expand(shape).to(dtype, memory_format=torch.contiguous_format, copy=True)
            continue
        if total is None:
            total = torch.zeros(shape, dtype=dtype, device=like.device)
        window = total
        for dim, k in enumerate(on):
            window = window.narrow(dim, one.starts[k] - box.starts[k], sizes[dim])
        window += part
    assert total is not None  # a box has members
    return total


def _spread(one: Ranged, value: Tensor | float, on: Sequence[int]) -> Tensor | float:
    """Return the value of a block with a dim for each label of ``on``, of size 1 where it does not vary."""
    if not isinstance(value, Tensor):
        return value
    return align(value, one.block.on, tuple([one.labels[k] for k in on]))
