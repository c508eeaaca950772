"""The ends of a block: swapped, joined, relabelled and tied."""

import itertools

import torch
from tests._blocks.blocks import CPU, Maker, at, spelled_out

from torchjac._blocks.block import Block, identity, labels
from torchjac._blocks.block_views import joined, relabelled, same_positions, side_of_diagonal, swapped, tied
from torchjac._blocks.maps import Affine, Gather, Label, bare


def random_blocks(count):
    """Blocks with the shapes of their ends."""
    for seed in range(count):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        yield make.block(out_shape, wrt_shape), out_shape, wrt_shape


def test_swapped() -> None:
    """The transposed block means the transposed matrix."""
    for block, out_shape, wrt_shape in random_blocks(60):
        rows, columns = torch.Size(out_shape).numel(), torch.Size(wrt_shape).numel()
        found = spelled_out(swapped(block), wrt_shape + out_shape).reshape(columns, rows)
        assert torch.equal(found, spelled_out(block, out_shape + wrt_shape).reshape(rows, columns).T)


def test_relabelled() -> None:
    """A block over labels of its own means the same and has no label in common."""
    for block, out_shape, wrt_shape in random_blocks(60):
        other = relabelled(block)
        assert torch.equal(
            spelled_out(other, out_shape + wrt_shape), spelled_out(block, out_shape + wrt_shape)
        )
        assert not set(labels(block)) & set(labels(other))
    kept = relabelled(identity((3,)))
    assert kept.out is kept.wrt  # what composition knows a diagonal by


def test_joined() -> None:
    """The joined map gives the row-major position of the maps together."""
    for block, out_shape, _ in random_blocks(100):
        one = joined(block.out, out_shape)
        over = labels(block)
        for values in itertools.product(*(range(label.size) for label in over)):
            point = dict(zip(over, values, strict=True))
            place = 0
            for map_, size in zip(block.out, out_shape, strict=True):
                place = place * size + at(map_, point)
            assert at(one, point) == place


def test_affine_maps_are_joined_without_a_table() -> None:
    """A reshape of affine maps stays affine."""
    i, j = Label(3), Label(4)
    assert joined((bare(i), bare(j)), (3, 4)) == Affine(0, ((i, 4), (j, 1)))
    assert joined((), ()) == Affine(0, ())


def test_same_positions() -> None:
    """Equal formulas and equal tables agree, whatever objects they are; labels of size 1 do not count."""
    i, j, one = Label(3), Label(4), Label(1)
    assert same_positions(Affine(2, ((i, 3), (j, 1))), Affine(2, ((j, 1), (i, 3))))
    assert same_positions(Affine(2, ((one, 5),)), Affine(2, ()))
    assert not same_positions(bare(i), bare(j))
    assert not same_positions(bare(i), Affine(1, ((i, 1),)))
    table = Gather(torch.tensor([2, 0, 1]), (i,))
    assert same_positions(table, Gather(torch.tensor([2, 0, 1]), (i,)))
    assert same_positions(Gather(torch.arange(3), (i,)), bare(i))
    assert not same_positions(table, bare(i))
    assert not same_positions(table, Gather(torch.tensor([2, 0, 1]), (Label(3),)))


def test_same_positions_is_never_wrong() -> None:
    """Where two maps are said to agree, they do at every value of their labels."""
    said = 0
    for block, _, _ in random_blocks(400):
        for a, b in itertools.combinations(block.out + block.wrt, 2):
            if same_positions(a, b):
                said += 1
                over = labels(block)
                for values in itertools.product(*(range(label.size) for label in over)):
                    point = dict(zip(over, values, strict=True))
                    assert at(a, point) == at(b, point)
    assert said > 10


def test_tied() -> None:
    """What is left of a tied block are the entries at which the ends agree."""
    for seed in range(150):
        make = Maker(seed)
        shape = make.shape(2)
        block = make.block(shape, shape)
        tie = tied(block, list(zip(block.out, block.wrt, shape, strict=True)), CPU)
        size = torch.Size(shape).numel()
        whole = spelled_out(block, shape + shape).reshape(size, size)
        found = spelled_out(tie, shape + shape).reshape(size, size)
        torch.testing.assert_close(found, torch.diag(whole.diagonal()))


def test_tied_shifts_never_meet() -> None:
    """A block beside the diagonal costs no look at its values."""
    i = Label(4)
    shifted = Block(torch.ones(4), (i,), (Affine(1, ((i, 1),)),), (bare(i),))
    assert tied(shifted, [(shifted.out[0], shifted.wrt[0], 5)], CPU) is None


def test_side_of_diagonal() -> None:
    """What is told of all entries holds for each of them, by affine maps and by tables."""
    told = set()
    for seed in range(400):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        block = make.block(out_shape, wrt_shape)
        side = side_of_diagonal(block, out_shape, wrt_shape)
        row, column = joined(block.out, out_shape), joined(block.wrt, wrt_shape)
        over = labels(block)
        points = [
            dict(zip(over, values, strict=True))
            for values in itertools.product(*(range(label.size) for label in over))
        ]
        apart = [at(column, point) - at(row, point) for point in points]
        if side is not None and apart:
            assert {(each > 0) - (each < 0) for each in apart} == {side}
            told.add((side, any(type(map_) is Gather for map_ in block.out + block.wrt)))
    assert told >= {(1, True), (-1, True), (1, False), (-1, False)}


def test_side_of_tables() -> None:
    """Ends of springs: one block below the diagonal, its transpose above; the same table at both ends is on it."""
    e, i, j = Label(3), Label(2), Label(2)
    high, low = (Gather(torch.tensor(ends), (e,)) for ends in ([3, 2, 4], [1, 0, 3]))
    block = Block(1.0, (), (high, bare(i)), (low, bare(j)))
    assert side_of_diagonal(block, (5, 2), (5, 2)) == -1
    assert side_of_diagonal(swapped(block), (5, 2), (5, 2)) == 1
    assert side_of_diagonal(Block(1.0, (), (high, bare(i)), (high, bare(i))), (5, 2), (5, 2)) == 0
    assert side_of_diagonal(Block(1.0, (), (high, bare(i)), (high, bare(j))), (5, 2), (5, 2)) is None
