"""Blocks as coordinates and values."""

import torch
from tests._blocks.blocks import LIKE, Maker, spelled_out

from torchjac._blocks.block import Block, entries, identity
from torchjac._blocks.coordinates import block_at, coordinate_block, coordinates, covers_once
from torchjac._blocks.maps import Affine, Gather, Label, bare


def test_coordinates_are_sorted_and_unique() -> None:
    """Positions come sorted, each once, and values placed there give the dense tensor."""
    for seed in range(200):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        shape = out_shape + wrt_shape
        blocks = [make.block(out_shape, wrt_shape) for _ in range(make.random.randint(0, 3))]
        where, values = coordinates(blocks, shape, LIKE)
        assert torch.equal(where, where.unique())
        found = torch.zeros(shape, dtype=torch.float64).view(-1).index_add(0, where, values).view(shape)
        expected = torch.zeros(shape, dtype=torch.float64)
        for block in blocks:
            expected += spelled_out(block, shape)
        torch.testing.assert_close(found, expected)


def test_coordinate_block() -> None:
    """One list of coordinates is the sum of any blocks, and of its own coordinates again."""
    for seed in range(200):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        shape = out_shape + wrt_shape
        blocks = [make.block(out_shape, wrt_shape) for _ in range(make.random.randint(0, 3))]
        found = coordinate_block(blocks, out_shape, wrt_shape, LIKE)
        expected = sum(
            (spelled_out(block, shape) for block in blocks), torch.zeros(shape, dtype=torch.float64)
        )
        torch.testing.assert_close(spelled_out(found, shape), expected)
        where, values = coordinates([found], shape, LIKE)
        again = block_at(where, values, out_shape, wrt_shape)
        torch.testing.assert_close(spelled_out(again, shape), expected)
        assert entries(again) == (where.numel() if shape else 1)


def test_covers_once_is_never_wrong() -> None:
    """Where strides say that no entry is named twice, none is."""
    said = 0
    for seed in range(300):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        block = make.block(out_shape, wrt_shape)._replace(value=1.0, on=())
        if covers_once(block, out_shape + wrt_shape):
            said += 1
            assert spelled_out(block, out_shape + wrt_shape).le(1).all(), seed
    assert said > 30


def test_covers_once() -> None:
    """Diagonals and slices cover their entries once; tables are not looked at."""
    label = Label(4)
    assert covers_once(identity((4,)), (4, 4))
    assert covers_once(Block(1.0, (), (bare(label),), (Affine(1, ((label, 2),)),)), (4, 9))
    assert not covers_once(Block(1.0, (), (bare(label),), (Gather(torch.arange(4), (label,)),)), (4, 4))
    meeting = Affine(0, ((Label(3), 1), (Label(2), 2)))
    assert not covers_once(Block(1.0, (), (meeting,), ()), (5,))
