"""Blocks of one line: the same law over other ranges becomes one block."""

import pytest
import torch
from tests._blocks.blocks import LIKE, Maker, spelled_out

from torchjac._blocks.block import Block, entries, stored
from torchjac._blocks.coalesce_diagonals import join_lines, line
from torchjac._blocks.cost import MANY_BLOCKS, MOST_BLOCKS
from torchjac._blocks.maps import Affine, Gather, Label, bare
from torchjac._blocks.merge import merge

CPU_GENERATOR = torch.Generator().manual_seed(0)


def diagonal(first: int, size: int, shift: int = 0, value: float | None = None) -> Block:
    """Entries (i, i + shift) for i from ``first`` on."""
    label = Label(size)
    maps = (Affine(first, ((label, 1),)),), (Affine(first + shift, ((label, 1),)),)
    if value is not None:
        return Block(value, (), *maps)
    return Block(torch.randn(size, dtype=torch.float64, generator=CPU_GENERATOR), (label,), *maps)


def total(blocks, shape):
    """The dense sum, entry by entry."""
    return sum(spelled_out(block, shape) for block in blocks)


@pytest.mark.parametrize(
    "ranges, sizes",
    [
        ([(0, 7), (2, 3)], [7]),  # one inside the other
        ([(0, 3), (3, 4)], [7]),  # one after the other
        ([(2, 4), (0, 3), (6, 1)], [7]),
        ([(0, 2), (3, 4)], [2, 4]),  # a gap
        ([(0, 1), (6, 1), (1, 5)], [7]),  # a gap that a third one fills
        ([(3, 1), (3, 1)], [1]),
    ],
)
def test_ranges(ranges, sizes) -> None:
    """Ranges that touch or overlap join, and no entry is named that none had."""
    blocks = [diagonal(first, size, 1) for first, size in ranges]
    found = join_lines(blocks, LIKE)
    torch.testing.assert_close(total(found, (8, 8)), total(blocks, (8, 8)))
    assert sorted(map(stored, found)) == sorted(sizes)


def test_gaps_of_a_long_list_are_not_named() -> None:
    """However long the list, entries between its blocks are not named."""
    blocks = [diagonal(2 * k, 1) for k in range(2 * MOST_BLOCKS)]
    found = join_lines(blocks, LIKE)
    assert sum(map(entries, found)) == 2 * MOST_BLOCKS
    shape = (4 * MOST_BLOCKS, 4 * MOST_BLOCKS)
    torch.testing.assert_close(total(found, shape), total(blocks, shape))


def test_other_lines_stay_apart() -> None:
    """Another shift, another stride, a transposed one."""
    i = Label(3)
    wide = Block(1.0, (), (bare(i),), (Affine(0, ((i, 2),)),))
    flat = Block(1.0, (), (Affine(0, ((i, 2),)),), (bare(i),))
    blocks = [diagonal(0, 3), diagonal(0, 3, 1), wide, flat]
    assert join_lines(blocks, LIKE) == blocks


def test_boxes_in_two_dims() -> None:
    """Two boxes join if one holds the other or they differ along one dim; a corner is never named."""

    def box(rows, columns):
        i, j = Label(rows[1]), Label(columns[1])
        maps = (Affine(rows[0], ((i, 1),)), Affine(columns[0], ((j, 1),)))
        value = torch.randn(i.size, j.size, dtype=torch.float64, generator=CPU_GENERATOR)
        return Block(value, (i, j), maps, (maps[0],))

    for pair, count in (
        (((0, 3), (0, 4)), 1),
        (((1, 2), (1, 2)), 1),
        (((0, 3), (2, 4)), 1),
        (((1, 4), (1, 4)), 2),
    ):
        blocks = [box((0, 3), (0, 4)), box(*pair)]
        found = join_lines(blocks, LIKE)
        assert len(found) == count
        torch.testing.assert_close(total(found, (6, 6, 6)), total(blocks, (6, 6, 6)))


def test_digits_of_a_flattened_dim() -> None:
    """Rows and columns in one dim of each side: their starts are read digit by digit."""

    def grid(row, column, rows, columns, shift):
        i, j = Label(rows), Label(columns)
        at = row * 10 + column
        value = torch.randn(rows, columns, dtype=torch.float64, generator=CPU_GENERATOR)
        maps = [(Affine(start, ((i, 10), (j, 1))),) for start in (at, at + shift)]
        return Block(value, (i, j), *maps)

    blocks = [grid(1, 1, 3, 7, 10), grid(1, 2, 3, 6, 10), grid(1, 1, 3, 7, 11)]
    found = join_lines(blocks, LIKE)
    assert len(found) == 2
    torch.testing.assert_close(total(found, (60, 70)), total(blocks, (60, 70)))


def test_labels_of_tables_are_not_moved() -> None:
    """A table is read over its whole label; along the others the block is joined."""
    index = torch.tensor([4, 0])

    def read(first, size):
        k, label = Label(2), Label(size)
        along = Affine(first, ((label, 1),))
        value = torch.randn(2, size, dtype=torch.float64, generator=CPU_GENERATOR)
        return Block(value, (k, label), (bare(k), along), (Gather(index, (k,)), along))

    blocks = [read(0, 3), read(2, 2)]
    (found,) = join_lines(blocks, LIKE)
    torch.testing.assert_close(total([found], (2, 4, 5, 4)), total(blocks, (2, 4, 5, 4)))


def test_constants_are_not_written_out_unless_the_list_is_long() -> None:
    """A part of a constant diagonal would store a number for each entry."""
    blocks = [diagonal(0, 9, value=2.0), diagonal(1, 7, value=-1.0)]
    assert join_lines(blocks, LIKE) == blocks
    many = [diagonal(k, 60 - k, shift, value=1.0) for k in range(9) for shift in range(6)]
    found = join_lines(many, LIKE)
    assert len(many) > MOST_BLOCKS
    assert len(found) == 6
    torch.testing.assert_close(total(found, (60, 65)), total(many, (60, 65)))


def test_random_blocks_keep_their_sum() -> None:
    """Whatever the maps are, with parts of the same blocks among them."""
    joined = 0
    for seed in range(150):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        blocks = []
        for _ in range(4):
            block = make.block(out_shape, wrt_shape)
            blocks.append(block)
            if (
                block.on
                and block.on[0].size > 1
                and not any(type(m) is Gather for m in block.out + block.wrt)
            ):
                blocks.append(_part(block, block.on[0]))
        found = join_lines(blocks, LIKE)
        joined += len(found) < len(blocks)
        shape = out_shape + wrt_shape
        torch.testing.assert_close(total(found, shape), total(blocks, shape))
        torch.testing.assert_close(
            total(merge(blocks * 3, out_shape, wrt_shape, LIKE), shape), 3 * total(blocks, shape)
        )
    assert joined > 50


def _part(block: Block, label: Label) -> Block:
    """The block from the second value of a label on, under new labels."""
    new = {old: Label(old.size - (old is label)) for map_ in block.out + block.wrt for old in map_.labels}

    def moved(map_):
        begin = sum(stride for old, stride in map_.terms if old is label)
        return Affine(map_.offset + begin, tuple((new[old], stride) for old, stride in map_.terms))

    value = block.value.narrow(0, 1, label.size - 1)
    on = tuple(new[old] for old in block.on)
    return Block(value, on, tuple(map(moved, block.out)), tuple(map(moved, block.wrt)))


def test_joined_values_are_differentiable_and_map() -> None:
    """The gradient of a joined value is the part of each; under vmap the parts may be batched."""
    a, b = torch.ones(5, dtype=torch.float64, requires_grad=True), torch.ones(3, dtype=torch.float64)

    def join(a, b):
        i, j = Label(5), Label(3)
        first = Block(a, (i,), (bare(i),), (bare(i),))
        second = Block(b, (j,), (Affine(1, ((j, 1),)),), (Affine(1, ((j, 1),)),))
        (found,) = join_lines([first, second], LIKE)
        return found.value

    assert join(a, b).tolist() == [1, 2, 2, 2, 1]
    (grad,) = torch.autograd.grad((join(a, b) ** 2).sum(), a)
    assert grad.tolist() == [2, 4, 4, 4, 2]
    rows = torch.func.vmap(join, (None, 0))(a.detach(), torch.stack([b, 2 * b]))
    assert rows.tolist() == [[1, 2, 2, 2, 1], [1, 3, 3, 3, 1]]


def test_line_is_the_same_for_parts() -> None:
    """What two parts have in common, and where each begins."""
    (key, first), (other, second) = line(diagonal(0, 5, 2)), line(diagonal(3, 2, 2))
    assert key == other
    assert first.starts == (0,)
    assert second.starts == (3,)
    assert line(diagonal(0, 5, 3))[0] != key


def test_a_deep_stencil_is_one_block_for_each_diagonal() -> None:
    """Parts as three steps of a stencil with ends leave: merged as soon as there are many."""
    blocks = [diagonal(max(k, 0) + cut, 30 - abs(k) - cut, k) for k in range(-3, 4) for cut in (0, 1, 2)]
    blocks = [b for b in blocks if b.out[0].offset + b.wrt[0].offset >= 0]
    assert len(blocks) > MANY_BLOCKS
    found = merge(blocks, (40,), (40,), LIKE)
    assert len(found) == 7
    torch.testing.assert_close(total(found, (40, 40)), total(blocks, (40, 40)))
