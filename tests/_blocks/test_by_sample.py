"""Blocks of one sample each become one block that names the same entries, and no others."""

import pytest
import torch
from tests._blocks.blocks import LIKE, spelled_out

from torchjac._blocks.block import Block, entries, stored, zeroed
from torchjac._blocks.by_sample import block_by_sample, holds_samples, in_one_by_sample
from torchjac._blocks.maps import Affine, Gather, Label, bare, constant

SHAPES = (3, 4), (3, 5)


def tied(rows, columns, value=None):
    """A block of three samples whose entries stand at some rows and columns: lists, or one that is affine."""
    i, j, k = Label(3), Label(len(rows)), Label(len(columns))
    value = torch.randn(len(columns), 3, len(rows), dtype=torch.float64) if value is None else value
    on = (k, i, j) if isinstance(value, torch.Tensor) else ()
    maps = [Gather(torch.tensor(list(at)), (label,)) for at, label in ((rows, j), (columns, k))]
    return Block(value, on, (bare(i), maps[0]), (bare(i), maps[1]))


def dense(blocks):
    """What blocks mean, entry by entry."""
    return sum(spelled_out(block, (*SHAPES[0], *SHAPES[1])) for block in blocks)


@pytest.mark.parametrize(
    "blocks",
    [
        [tied([0, 3], [1, 2, 4]), tied([2], [0])],  # apart
        [tied([0, 3], [1, 2, 4]), tied([3, 1], [4, 0])],  # one entry in both
        [tied([0, 0], [1, 1]), tied([1], [2])],  # an entry named four times by one block
        [tied(range(4), range(5)), tied([1], [2], 2.5)],  # all of them, and a number on one
    ],
)
def test_the_same_entries(blocks) -> None:
    """The block is the sum, its entries are those that any of the blocks names, and each is named once."""
    found = block_by_sample(blocks, *SHAPES, LIKE)
    torch.testing.assert_close(dense([found]), dense(blocks))
    named = dense([block._replace(value=1.0, on=()) for block in blocks]) != 0
    assert entries(found) == int(named.sum())
    assert holds_samples(found, *SHAPES)
    if named.sum() == 3 * 20:  # no table
        assert all(isinstance(map_, Affine) for map_ in found.out + found.wrt)


def other(out, wrt, value=2.0, on=()):
    """A block of other maps."""
    return Block(value, on, out, wrt)


SAMPLE, ROW = Label(3), Label(4)
OTHERS = {
    "other samples": other((bare(SAMPLE), constant(1)), (bare(Label(3)), constant(0))),
    "shifted samples": other((bare(SAMPLE), constant(1)), (Affine(2, ((SAMPLE, -1),)), constant(0))),
    "a table of each sample": other(
        (bare(SAMPLE), constant(1)), (bare(SAMPLE), Gather(torch.tensor([0, 2, 1]), (SAMPLE,)))
    ),
    "a domain": zeroed(
        other((bare(SAMPLE), bare(ROW)), (bare(SAMPLE), bare(ROW))), domain=(Affine(-1, ((ROW, 1),)),)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_blocks_stay(name) -> None:
    """Where samples meet, entries differ between them or some are zero by law, nothing is merged."""
    blocks = [tied(range(4), range(5)), OTHERS[name]]
    assert block_by_sample(blocks, *SHAPES, LIKE) is None
    assert in_one_by_sample(blocks, *SHAPES, LIKE) == blocks


def test_structure_is_kept() -> None:
    """Few entries of many, and numbers that are not held, are no reason to list them."""
    i, j = Label(30), Label(40)
    value = torch.randn(30, 40)
    band = [Block(value, (i, j), (bare(i), bare(j)), (bare(i), Affine(k, ((j, 1),)))) for k in range(3)]
    assert in_one_by_sample(band, (30, 40), (30, 42), LIKE) == band
    numbers = [tied([0, 1], [k], 1.0) for k in range(5)]
    assert in_one_by_sample(numbers, (3, 2), (3, 5), LIKE) == numbers
    held = [tied([0, 1], [k]) for k in range(5)]
    (found,) = in_one_by_sample(held, (3, 2), (3, 5), LIKE)
    assert stored(found) == 30


def test_one_entry_a_sample() -> None:
    """Samples that are numbers."""
    blocks = [
        Block(torch.randn(3), (label,), (bare(label),), (bare(label),)) for label in (Label(3), Label(3))
    ]
    found = block_by_sample(blocks, (3,), (3,), LIKE)
    torch.testing.assert_close(found.value, blocks[0].value + blocks[1].value, check_dtype=False)
