"""Adding blocks: like maps add, others stay, long lists become coordinates."""

from math import prod

import pytest
import torch
from tests._blocks.blocks import LIKE, Maker, spelled_out

from torchjac._blocks.block import Block, entries, identity, is_dense, labels, stored
from torchjac._blocks.cost import MOST_BLOCKS
from torchjac._blocks.maps import Affine, Gather, Label, bare, constant
from torchjac._blocks.merge import dense_block, merge


def _renamed(block: Block) -> Block:
    """The same block with labels of its own."""
    new = {label: Label(label.size) for label in labels(block)}

    def map_(old):
        if type(old) is Gather:
            return Gather(old.index, tuple(new[label] for label in old.labels))
        return Affine(old.offset, tuple((new[label], stride) for label, stride in old.terms))

    on = tuple(new[label] for label in block.on)
    return Block(block.value, on, tuple(map(map_, block.out)), tuple(map(map_, block.wrt)))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("count", [2, 3, MOST_BLOCKS + 12])
def test_merge_keeps_the_sum(count: int, sparse: bool) -> None:
    """The dense sum is the same before and after, some blocks standing there twice under other labels."""
    for seed in range(60):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        blocks = [make.block(out_shape, wrt_shape) for _ in range(count)]
        blocks += [_renamed(block) for block in blocks[:2]]
        expected = sum(spelled_out(block, out_shape + wrt_shape) for block in blocks)
        found = merge(blocks, out_shape, wrt_shape, LIKE, sparse)
        assert len(found) <= MOST_BLOCKS
        torch.testing.assert_close(
            sum(spelled_out(block, out_shape + wrt_shape) for block in found), expected
        )


def test_like_blocks_become_one() -> None:
    """Two diagonals add their values; so do blocks whose index tensor is one object."""
    i, j = Label(5), Label(5)
    ones = [Block(torch.ones(5), (label,), (bare(label),), (bare(label),)) for label in (i, j)]
    (found,) = merge([*ones, identity((5,))], (5,), (5,), LIKE)
    assert found.value.tolist() == [3.0] * 5
    index = torch.tensor([3, 0])
    k = Label(2)
    gathers = [Block(1.0, (), (bare(k),), (Gather(index, (k,)),)) for _ in range(3)]
    (found,) = merge(gathers, (2,), (5,), LIKE)
    assert found.value == 3.0
    assert stored(found) == 2


def test_same_sizes_other_labels_stay_apart() -> None:
    """A diagonal and an outer product of the same sizes are not alike."""
    i, j = Label(3), Label(3)
    outer = Block(1.0, (), (bare(i),), (bare(j),))
    found = merge([identity((3,)), outer], (3,), (3,), LIKE)
    assert len(found) == 2


def test_merge_of_transposes() -> None:
    """Out (i, j), wrt (i, j) and out (i, j), wrt (j, i) are not alike."""
    i, j = Label(3), Label(3)
    straight = Block(1.0, (), (bare(i), bare(j)), (bare(i), bare(j)))
    crossed = Block(1.0, (), (bare(i), bare(j)), (bare(j), bare(i)))
    assert len(merge([straight, crossed], (3, 3), (3, 3), LIKE)) == 2


def test_too_many_numbers_become_dense() -> None:
    """Where the blocks hold more numbers than the dense Jacobian, it is formed."""
    blocks = []
    for offset in range(3):
        label = Label(3)
        index = torch.tensor([0, offset, 2])
        blocks.append(
            Block(torch.rand(3), (label,), (Gather(index, (label,)),), (Gather(index * 1, (label,)),))
        )
    (found,) = merge(blocks, (3,), (3,), LIKE)
    assert is_dense(found, (3, 3))
    assert stored(found) == 9


def test_entries_of_a_sparse_answer_are_counted_once() -> None:
    """Blocks that hold more than the dense Jacobian at few places become coordinates, where the answer is sparse."""
    blocks = []
    for _ in range(3):
        label, index = Label(6), torch.tensor([0, 1, 2, 0, 1, 3])
        blocks.append(
            Block(torch.rand(6), (label,), (Gather(index, (label,)),), (Gather(index * 1, (label,)),))
        )
    (found,) = merge(blocks, (4,), (4,), LIKE, sparse=True)
    assert entries(found) == 4
    torch.testing.assert_close(
        spelled_out(found, (4, 4)), sum(spelled_out(block, (4, 4)) for block in blocks).to(LIKE.dtype)
    )
    (found,) = merge(blocks, (4,), (4,), LIKE)
    assert is_dense(found, (4, 4))


def test_pieces_that_tile_the_dense_jacobian_become_one() -> None:
    """Full pieces side by side hold what the dense Jacobian does: one block goes on from there, not two."""
    columns = Label(4)
    blocks = []
    for start, size in ((0, 2), (2, 3)):
        rows = Label(size)
        wrt = (Affine(start, ((rows, 1),)),)
        blocks.append(Block(torch.rand(4, size), (columns, rows), (bare(columns),), wrt))
    (found,) = merge(blocks, (4,), (5,), LIKE)
    assert is_dense(found, (4, 5))
    torch.testing.assert_close(found.value, torch.cat([block.value for block in blocks], 1).to(LIKE.dtype))


def test_dense_block() -> None:
    """The dense block has every entry once and a label for each dim."""
    for seed in range(40):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        blocks = [make.block(out_shape, wrt_shape) for _ in range(2)]
        found = dense_block(blocks, out_shape, wrt_shape, LIKE)
        assert entries(found) == stored(found) == prod(out_shape) * prod(wrt_shape)
        expected = sum(spelled_out(block, out_shape + wrt_shape) for block in blocks)
        torch.testing.assert_close(found.value, expected)


def test_entries_of_samples_are_listed_once() -> None:
    """Small blocks of a few samples that are listed keep the samples as a label: positions are those of one."""
    i, size = Label(3), 3
    blocks = [
        Block(torch.randn(size), (i,), (bare(i), constant(k % 7)), (bare(i), constant((3 * k) % 37)))
        for k in range(60)
    ]
    merged = merge(blocks, (3, 8), (3, 40), LIKE)
    assert len(merged) == 1
    assert [len(map_.labels) for map_ in (*merged[0].out, *merged[0].wrt)] == [1, 1, 1, 1]
    assert merged[0].out[0] == merged[0].wrt[0]
    assert len(labels(merged[0])) == 2
    expected = sum(spelled_out(block, (3, 8, 3, 40)) for block in blocks)
    torch.testing.assert_close(spelled_out(merged[0], (3, 8, 3, 40)), expected)
