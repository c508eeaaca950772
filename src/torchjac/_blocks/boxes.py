"""Where entries of affine blocks stand in a matrix by rows: algebra of maps, without a sort and without a search.

The rows are cut into boxes in which the same blocks stand. There every row has as many entries, in the same order,
so the place of an entry in the list of nonzeros is again an affine map of its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import prod
from typing import NamedTuple, TypeAlias, TypeGuard

import numpy

from .digits import Placed, placed, units_of
from .fill import Box, BoxPiece
from .maps import Affine, Label, Map

#: The maps of a block: of its output dims and of its input dims
Maps: TypeAlias = tuple[tuple[Map, ...], tuple[Map, ...]]
AffineMaps: TypeAlias = tuple[tuple[Affine, ...], tuple[Affine, ...]]

#: Boxes times blocks past which a search is cheaper than algebra.
MOST_BOXES = 20_000

#: The most positions of a digit that is cut at each of them where entries stand in another order in some rows.
SHORT = 8


class Boxes(NamedTuple):
    """The boxes of a matrix, the number of entries in each row, box by box, and the digits of the rows."""

    boxes: list[Box]
    counts: numpy.ndarray
    cuts: list[list[int]]
    digits: list[list[int]]

    @property
    def nnz(self) -> int:
        """The number of nonzeros."""
        whole = self.counts
        for cut in reversed(self.cuts):
            whole = whole @ numpy.diff(cut)
        return int(whole)

    def row_counts(self, shape: Sequence[int]) -> numpy.ndarray:
        """Return the number of entries of each row."""
        whole = self.counts
        for axis, cut in enumerate(self.cuts):
            whole = whole.repeat(numpy.diff(cut), axis)
        whole = whole.reshape([prod(each) for each in self.digits])
        return whole[tuple(slice(size) for size in shape)].reshape(-1)


def boxes(
    blocks: Sequence[tuple[Maps, Sequence[Label]]], out_shape: Sequence[int], in_shape: Sequence[int]
) -> Boxes | None:
    """Return the boxes of affine blocks, given as maps and labels; None where no such algebra is known."""
    if not _are_affine(blocks):
        return None
    units = [units_of([out[dim] for (out, _), _ in blocks]) for dim in range(len(out_shape))]
    if not all(units):
        return None
    digits = [
        [-(-size // each[-1]), *(b // a for a, b in zip(each[-2::-1], each[:0:-1], strict=True))]
        for size, each in zip(out_shape, units, strict=True)
    ]
    found: list[Placed | None] = []
    for (out, wrt), over in blocks:
        if any(label.size == 0 for label in over):
            found.append(None)
            continue
        one = placed(out, wrt, over, units, digits, in_shape)
        if one is None:
            return None
        found.append(one)
    sizes = [size for each in digits for size in each]
    cuts = [
        sorted({0, size, *(at for one in found if one for at in one.ranges[g][:2])})
        for g, size in enumerate(sizes)
    ]
    inside = _inside(found, cuts)
    if inside is None:
        cuts = [
            list(range(size + 1)) if size <= SHORT else cut for cut, size in zip(cuts, sizes, strict=True)
        ]
        inside = _inside(found, cuts)
    if inside is None:
        return None
    counts = numpy.zeros([len(cut) - 1 for cut in cuts], numpy.int64)
    for at, groups in inside.items():
        counts[at] = sum(group.leader.width for group in groups)
    begins, steps = _row_starts(counts, cuts)
    filled = [
        _box(
            groups,
            [(cut[k], cut[k + 1]) for cut, k in zip(cuts, at, strict=True)],
            int(begins[at]),
            [int(step[at[: g + 1]]) for g, step in enumerate(steps)],
        )
        for at, groups in inside.items()
    ]
    return Boxes(filled, counts, cuts, digits)


def _inside(
    found: Sequence[Placed | None], cuts: Sequence[list[int]]
) -> dict[tuple[int, ...], list[_Group]] | None:
    """Return the blocks of each box by their columns; None where their order is not the same in each row of one."""
    shape = [len(cut) - 1 for cut in cuts]
    if prod(shape) * max(len(found), 1) > MOST_BOXES:
        return None
    inside: dict[tuple[int, ...], list[_Group]] = {}
    for at in product(*map(range, shape)):
        groups = _groups(found, [(cut[k], cut[k + 1]) for cut, k in zip(cuts, at, strict=True)])
        if groups is None:
            return None
        if groups:
            inside[at] = groups
    return inside


def _are_affine(
    blocks: Sequence[tuple[Maps, Sequence[Label]]],
) -> TypeGuard[Sequence[tuple[AffineMaps, Sequence[Label]]]]:
    return all(type(map_) is Affine for (out, wrt), _ in blocks for map_ in out + wrt)


class _Group:
    """Blocks on the same columns of a box: the one that holds them all, and others inside of it."""

    def __init__(self, number: int, leader: Placed) -> None:
        self.number, self.leader = number, leader
        #: number, block, and its place inside the leader: offset, steps along digits and along its free labels
        self.inside: list[tuple[int, Placed, int, list[int], list[int]]] = []


def _groups(placed: Sequence[Placed | None], box: Sequence[tuple[int, int]]) -> list[_Group] | None:
    """Return the blocks of a box by their columns in rising order; None if that order is not the same in each row."""
    here = [
        (number, _settled(one, box))
        for number, one in enumerate(placed)
        if one
        and all(r.low <= low and high <= r.high for r, (low, high) in zip(one.ranges, box, strict=True))
    ]
    here.sort(key=lambda each: -each[1].width)
    same: dict[tuple[object, ...], _Group] = {}
    wide: list[_Group] = []
    for number, one in here:
        key = (one.offset, one.steps, tuple([each[:2] for each in one.free]))
        group = same.get(key)
        if group is not None:
            group.inside.append((number, one, 0, [0] * len(box), _weights(one)))
            continue
        for group in wide:
            place = _within(one, group.leader, box)
            if place is not None:
                group.inside.append((number, one, *place))
                break
        else:
            same[key] = _Group(number, one)
            if one.width > 1 and _is_run(one):
                wide.append(same[key])
    groups = sorted(
        same.values(), key=lambda group: _least(group.leader.offset, group.leader.steps, box, True)
    )
    for before, after in pairwise(groups):
        a, b = before.leader, after.leader
        steps = [y - x for x, y in zip(a.steps, b.steps, strict=True)]
        if _least(b.offset - a.offset - a.span, steps, box) <= 0:
            return None
    return groups


def _settled(one: Placed, box: Sequence[tuple[int, int]]) -> Placed:
    """Return a block without steps along digits of one position in a box, where it is like one that has no label."""
    single = [high - low == 1 for low, high in box]
    offset = one.offset + sum(
        step * low for step, (low, _), alone in zip(one.steps, box, single, strict=True) if alone
    )
    steps = tuple([0 if alone else step for step, alone in zip(one.steps, single, strict=True)])
    return one._replace(offset=offset, steps=steps)


def _least(offset: int, steps: Sequence[int], box: Sequence[tuple[int, int]], first: bool = False) -> int:
    """Return the least value of an affine function in a box, or its value at the ``first`` corner."""
    return offset + sum(
        step * (low if step > 0 or first else high - 1) for step, (low, high) in zip(steps, box, strict=True)
    )


def _most(offset: int, steps: Sequence[int], box: Sequence[tuple[int, int]]) -> int:
    return -_least(-offset, [-step for step in steps], box)


def _is_run(one: Placed) -> bool:
    """Return whether the columns of a row are an arithmetic progression."""
    reach = one.free[-1][0]
    for step, size, _ in reversed(one.free):
        if step != reach:
            return False
        reach = step * size
    return True


def _weights(one: Placed) -> list[int]:
    """Return how many entries lie between two neighbours along each free label."""
    below, found = 1, []
    for _, size, _ in reversed(one.free):
        found.append(below)
        below *= size
    return found[::-1]


def _within(
    one: Placed, leader: Placed, box: Sequence[tuple[int, int]]
) -> tuple[int, list[int], list[int]] | None:
    """Return where the columns of a block stand among those of a run that holds them all, else None."""
    unit = leader.free[-1][0]
    offset = one.offset - leader.offset
    steps = [a - b for a, b in zip(one.steps, leader.steps, strict=True)]
    free = [step for step, _, _ in one.free]
    if any(number % unit for number in (offset, *steps, *free)):
        return None
    if _least(offset, steps, box) < 0 or _most(offset, steps, box) + one.span > leader.span:
        return None
    return offset // unit, [step // unit for step in steps], [step // unit for step in free]


def _row_starts(counts: numpy.ndarray, cuts: list[list[int]]) -> tuple[numpy.ndarray, list[numpy.ndarray]]:
    """Return where the first row of each box begins among the nonzeros, and the step along each digit.

    The step of a digit depends on the boxes of the digits before it and its own.
    """
    steps: list[numpy.ndarray] = []
    whole = counts
    starts = numpy.zeros(counts.shape, numpy.int64)
    for axis in reversed(range(counts.ndim)):
        steps.append(whole)
        long = whole * numpy.diff(cuts[axis])
        before = numpy.cumsum(long, -1) - long
        starts += before.reshape(before.shape + (1,) * (counts.ndim - before.ndim))
        whole = long.sum(-1)
    return starts, steps[::-1]


def _box(groups: Sequence[_Group], box: Sequence[tuple[int, int]], begin: int, steps: Sequence[int]) -> Box:
    found: list[list[BoxPiece]] = []
    at = begin
    for group in groups:
        leader = group.leader
        pieces = [
            _piece(
                number,
                one,
                box,
                at + _least(shift, more, box, True),
                [a + b for a, b in zip(steps, more, strict=True)],
                inner,
            )
            for number, one, shift, more, inner in [
                (group.number, leader, 0, [0] * len(box), _weights(leader)),
                *group.inside,
            ]
        ]
        found.append(pieces)
        at += leader.width
    return Box(begin, tuple([high - low for low, high in box]), tuple(steps), at - begin, found)


def _piece(
    number: int,
    one: Placed,
    box: Sequence[tuple[int, int]],
    offset: int,
    steps: Sequence[int],
    inner: Sequence[int],
) -> BoxPiece:
    reads, places, columns = [(0, 1, False)] * one.dims, [0] * one.dims, [0] * one.dims
    for each, (low, high), step, column in zip(one.ranges, box, steps, one.steps, strict=True):
        if each.dim is not None:
            flip = each.dim in one.flips
            reads[each.dim] = (each.high - high if flip else low - each.low, high - low, flip)
            places[each.dim], columns[each.dim] = step, column
    for (step, size, dim), place in zip(one.free, inner, strict=True):
        reads[dim] = (0, size, dim in one.flips)
        places[dim], columns[dim] = place, step
    first = _least(one.offset, one.steps, box, True)
    along = tuple([each.dim for each in one.ranges])
    return BoxPiece(number, tuple(reads), tuple(places), offset, along, (first, tuple(columns)))
