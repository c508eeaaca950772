"""Index maps: substitution, positions, and tensors read through maps."""

import math
from itertools import product

import pytest
import torch
from tests._blocks.blocks import CPU, Maker, at

from torchjac._blocks.maps import (
    Affine,
    Gather,
    Label,
    align,
    bare,
    bare_label,
    constant,
    labels_of,
    positions,
    substitute,
    take,
)  # fmt: skip


def _points(over):
    return [
        dict(zip(over, values, strict=True)) for values in product(*(range(label.size) for label in over))
    ]


def test_substitute_reads_through() -> None:
    """The substituted map at a point is the map at the substituted point."""
    for seed in range(400):
        make = Maker(seed)
        pool: list[Label] = []
        size = make.random.randint(1, 6)
        map_ = make.map(size, pool)
        new: list[Label] = []
        by = {label: make.map(label.size, new) for label in map_.labels if make.random.random() < 0.8}
        found = substitute(map_, by)
        over = tuple(labels_of((found, *by.values(), map_)))
        for point in _points(over):
            inner = {label: at(by[label], point) if label in by else point[label] for label in map_.labels}
            assert at(found, point) == at(map_, inner), seed


def test_substitute_cancels() -> None:
    """Terms that cancel leave no label: i − i is a constant."""
    i, j, k = Label(3), Label(3), Label(3)
    assert substitute(Affine(4, ((i, 1), (j, -1))), {i: bare(k), j: bare(k)}) == constant(4)


def test_positions_broadcast() -> None:
    """Positions over more labels than a map has are constant along the others."""
    for seed in range(100):
        make = Maker(seed)
        pool: list[Label] = []
        map_ = make.map(5, pool)
        over = (*pool, Label(2))
        found = positions(map_, over, CPU).expand([label.size for label in over])
        for point in _points(over):
            assert int(found[tuple(point.values())]) == at(map_, point)


def test_take_reads_entries() -> None:
    """A tensor read at maps has, at each point, the entry at the positions of the maps."""
    for seed in range(400):
        make = Maker(seed)
        sizes = [make.random.randint(1, 4) for _ in range(make.random.randint(0, 3))]
        on = tuple(Label(size) for size in sizes)
        value = torch.randn(sizes, dtype=torch.float64, generator=make.generator)
        pool = list(on) if make.random.random() < 0.3 else []
        by = {label: make.map(label.size, pool) for label in on if make.random.random() < 0.8}
        found, over = take(value, on, by)
        assert len(set(over)) == len(over)
        for point in _points(over):
            where = tuple(at(by[label], point) if label in by else point[label] for label in on)
            assert found[tuple(point[label] for label in over)] == value[where], seed


def test_take_is_a_view_where_it_can_be() -> None:
    """Renaming and slicing copy nothing."""
    value, label = torch.rand(6), Label(6)
    windows = Affine(1, ((Label(2), 3), (Label(2), 1)))
    for map_ in (bare(Label(6)), Affine(1, ((Label(3), 2),)), constant(2), windows):
        found, _ = take(value, (label,), {label: map_})
        assert found.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()


@pytest.mark.parametrize("count, step, size", [(2, 3, 3), (2, 2, 1), (3, 1, 2), (1, 4, 3), (2, 1, 1)])
def test_windows_are_a_view(count: int, step: int, size: int) -> None:
    """A map of two labels, one inside windows that another counts, reads a view, whatever stands on either side."""
    value = torch.rand(2, 8, 3)
    first, middle, last, at, place = (Label(n) for n in (2, 8, 3, count, size))
    found, over = take(value, (first, middle, last), {middle: Affine(1, ((place, 1), (at, step)))})
    assert set(over) == {first, at, last, place}
    found = found.permute([over.index(label) for label in (first, at, last, place)])
    assert found.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
    for a, p in product(range(count), range(size)):
        assert torch.equal(found[:, a, :, p], value[:, 1 + step * a + p])


@pytest.mark.parametrize(
    "sizes, offset", [((2, 3, 4), 0), ((2, 2, 2), 3), ((2, 2), 1), ((3, 1, 2), 0), ((2, 3), 0)]
)
def test_a_range_counted_through_is_a_view(sizes, offset) -> None:
    """A map of several labels that count through a range, as those of a flattened image, reads a view."""
    first, last, inner = Label(2), Label(3), tuple(map(Label, sizes))
    terms = [(label, math.prod(sizes[at + 1 :])) for at, label in enumerate(inner)]
    value = torch.rand(2, offset + math.prod(sizes) + 1, 3)
    middle = Label(value.shape[1])
    found, over = take(value, (first, middle, last), {middle: Affine(offset, tuple(reversed(terms)))})
    expected = value[:, offset : offset + math.prod(sizes)].unflatten(1, sizes)
    found = found.permute([over.index(label) for label in (first, *inner, last)])
    assert torch.equal(found, expected)
    if 1 not in sizes:
        assert found.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()


def test_a_range_with_gaps_reads_entries() -> None:
    """Labels that leave out positions, or come to one twice, do not count through a range."""
    value, label = torch.rand(40), Label(40)
    for strides in ((12, 4, 2), (9, 4, 1), (4, 4, 1), (6, 3, 1)):
        inner = tuple(map(Label, (2, 3, 2)))
        found, over = take(value, (label,), {label: Affine(1, tuple(zip(inner, strides, strict=True)))})
        found = found.permute([over.index(each) for each in inner])
        for point in product(*map(range, (2, 3, 2))):
            assert found[point] == value[1 + sum(a * s for a, s in zip(point, strides, strict=True))]


def test_align() -> None:
    """Dims are put into the order asked for, with size 1 where the value has no label."""
    i, j, k = Label(2), Label(3), Label(4)
    value = torch.rand(4, 2)
    found = align(value, (k, i), (i, j, k))
    assert found.shape == (2, 1, 4)
    assert torch.equal(found[:, 0], value.t())


@pytest.mark.parametrize("map_, is_bare", [(Affine(1, ()), False), (Affine(0, ((Label(3), 2),)), False)])
def test_bare_label(map_, is_bare: bool) -> None:
    """Only the label itself is bare."""
    assert (bare_label(map_) is not None) == is_bare
    label = Label(3)
    assert bare_label(bare(label)) is label
    assert bare_label(Gather(torch.arange(3), (label,))) is None
