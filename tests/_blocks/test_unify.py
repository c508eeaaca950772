"""Where the maps of two blocks meet."""

from itertools import product
from math import prod

import pytest
import torch
from tests._blocks.blocks import CPU, Maker, at

from torchjac._blocks.maps import Affine, Gather, Label, Map, bare, constant, labels_of, substitute
from torchjac._blocks.unify import CannotJoinError, unify


def _pairs(left: Map, right: Map) -> list[tuple[int, ...]]:
    over = tuple(labels_of((left, right)))
    points = (
        dict(zip(over, values, strict=True)) for values in product(*(range(label.size) for label in over))
    )
    return sorted(tuple(point.values()) for point in points if at(left, point) == at(right, point))


def _solutions(left: Map, right: Map, size: int) -> list[tuple[int, ...]]:
    over = tuple(labels_of((left, right)))
    by = unify((left,), (right,), (size,), CPU)
    if by is None:
        return []
    maps = [by.get(label, bare(label)) for label in over]
    free = tuple(labels_of(tuple(maps)))
    points = [
        dict(zip(free, values, strict=True)) for values in product(*(range(label.size) for label in free))
    ]
    return sorted(tuple(at(map_, point) for map_ in maps) for point in points)


def test_progressions_meet() -> None:
    """Every pair of small progressions meets exactly where their positions agree."""
    for first, second in product(product((0, 1, 4), (1, 2, 3, -1, -2), (1, 2, 4)), repeat=2):
        a, b = (Affine(start, ((Label(count), stride),)) for start, stride, count in (first, second))
        assert _solutions(a, b, 20) == _pairs(a, b), (first, second)


def test_random_maps_meet() -> None:
    """Maps of any kind meet exactly where their positions agree, each pair once."""
    for seed in range(600):
        make = Maker(seed)
        size = make.random.randint(1, 6)
        left, right = make.map(size, []), make.map(size, [])
        assert _solutions(left, right, size) == _pairs(left, right), seed


def test_affine_stays_affine() -> None:
    """Two progressions meet in a progression: no index tensor is made."""
    i, j = Label(10), Label(10)
    by = unify((Affine(0, ((i, 2),)),), (Affine(0, ((j, 3),)),), (40,), CPU)
    assert all(type(map_) is Affine for map_ in by.values())
    assert substitute(Affine(0, ((i, 2),)), by) == substitute(Affine(0, ((j, 3),)), by)


@pytest.mark.parametrize("sizes", [(2, 3), (3, 1), (1, 1), (2, 3, 4)])
def test_a_position_has_digits(sizes: tuple[int, ...]) -> None:
    """An entry of a joined dim is one of each dim: as where entries are stacked and viewed as a matrix."""
    labels = [Label(size) for size in sizes]
    strides = [prod(sizes[k + 1 :]) for k in range(len(sizes))]
    number = Affine(5, tuple(zip(labels, strides, strict=True)))
    for position in range(prod(sizes)):
        by = unify((constant(position + 5),), (number,), (prod(sizes) + 10,), CPU)
        assert by is not None
        assert all(type(map_) is Affine and not map_.terms for map_ in by.values())
        assert substitute(number, by) == constant(position + 5)
    for outside in (4, 5 + prod(sizes)):
        assert unify((number,), (constant(outside),), (prod(sizes) + 10,), CPU) is None
    gaps = Affine(0, ((Label(2), 10), (Label(3), 2)))
    assert unify((constant(5),), (gaps,), (20,), CPU) is None
    assert unify((constant(0),), (Affine(0, ((Label(0), 2), (Label(2), 1))),), (20,), CPU) is None


@pytest.mark.parametrize("position", [-1, 0, 3, 4])
def test_constant_outside(position: int) -> None:
    """A position that a label never reaches is met nowhere."""
    label = Label(4)
    by = unify((bare(label),), (constant(position),), (9,), CPU)
    assert (by is not None) == (0 <= position < 4)


def test_dims_are_solved_together() -> None:
    """A label that stands in two dims has to agree in both."""
    i, j, k = Label(3), Label(3), Label(3)
    by = unify((bare(i), bare(i)), (bare(j), Affine(2, ((k, -1),))), (3, 3), CPU)
    assert substitute(bare(j), by) == substitute(Affine(2, ((k, -1),)), by)


def test_unknown_positions_under_vmap() -> None:
    """Positions that differ along a vmap dim cannot be matched, and it says so."""
    fixed = Gather(torch.tensor([0, 2, 2]), (Label(3),))

    def joined(index):
        with pytest.raises(CannotJoinError):
            unify((Gather(index, (Label(3),)),), (fixed,), (4,), CPU)
        return index

    torch.func.vmap(joined)(torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_dim_of_one_entry(count: int) -> None:
    """Whatever a table holds it is 0, so that nothing is matched by values; of no positions there are none."""
    one, label = Label(1), Label(count)
    table = Gather(torch.zeros(count, dtype=torch.int64), (label,))
    for other in (constant(0), bare(one), bare(Label(1))):
        assert _solutions(table, other, 1) == _pairs(table, other)
        assert _solutions(other, table, 1) == _pairs(other, table)
    empty = bare(Label(0))
    for other in (constant(0), bare(one), table):
        assert unify((empty,), (other,), (1,), CPU) is None
    unknown = torch.func.vmap(
        lambda at: torch.tensor(unify((Gather(at, (one,)),), (constant(0),), (1,), CPU) == {})
    )
    assert unknown(torch.zeros(2, 1, dtype=torch.int64)).all()
