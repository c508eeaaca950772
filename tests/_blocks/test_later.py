"""Values that are known later: the steps that composing and adding leave give what is found at once."""

import pytest
import torch
from tests._blocks.blocks import LIKE, Maker

from torchjac._blocks.block import Block, stored, valued
from torchjac._blocks.compose import compose
from torchjac._blocks.cost import MANY_BLOCKS, MOST_BLOCKS
from torchjac._blocks.later import Later, Steps, ValuesNeededError, later, needed_now
from torchjac._blocks.maps import Affine, Label
from torchjac._blocks.merge import dense_block, merge
from torchjac._blocks.write import dense


def wait(blocks):
    """Blocks with values that are known later, and the steps that are given them."""
    steps = Steps(len(blocks))
    waiting = [
        valued(block, Later(steps, at, not isinstance(block.value, torch.Tensor)))
        for at, block in enumerate(blocks)
    ]
    return steps, waiting


def put(steps, blocks, given):
    """Blocks with the values that steps make of those given."""
    values = steps.take([block.value for block in given])
    return [
        valued(block, values[block.value.place] if type(block.value) is Later else block.value)
        for block in blocks
    ]


@pytest.mark.parametrize("selects", [False, True])
def test_products(selects):
    """A product of two blocks, its values given later, one of them a number perhaps."""
    for seed in range(150):
        make = Maker(seed)
        out_shape, shape, wrt_shape = make.shape(2), make.shape(2), make.shape(2)
        pair = [make.block(out_shape, shape), make.block(shape, wrt_shape)]
        steps, (left, right) = wait(pair)
        expected = compose(*pair, shape, LIKE.device, selects)
        found = compose(left, right, shape, LIKE.device, selects)
        assert (found is None) == (expected is None)
        if found is not None:
            (given,) = put(steps, [found], pair)
            torch.testing.assert_close(
                dense([given], out_shape, wrt_shape, LIKE), dense([expected], out_shape, wrt_shape, LIKE)
            )


@pytest.mark.parametrize("count", [2, 5, MANY_BLOCKS + 3])
def test_sums(count):
    """A sum of blocks, some of which stand on one line, or hold as much as all entries."""
    for seed in range(60):
        make = Maker(seed)
        out_shape, wrt_shape = make.shape(2), make.shape(2)
        blocks = [make.block(out_shape, wrt_shape) for _ in range(count)]
        blocks += [valued(blocks[0], blocks[0].value * 2)]
        steps, waiting = wait(blocks)
        expected = merge(blocks, out_shape, wrt_shape, LIKE)
        found = put(steps, merge(waiting, out_shape, wrt_shape, LIKE), blocks)
        assert [stored(block) for block in found] == [stored(block) for block in expected]
        torch.testing.assert_close(
            dense(found, out_shape, wrt_shape, LIKE),
            dense(expected, out_shape, wrt_shape, LIKE),
            rtol=0,
            atol=0,
        )


def test_dense():
    """All blocks as one."""
    make = Maker(3)
    blocks = [make.block((3, 2), (4,)) for _ in range(3)]
    steps, waiting = wait(blocks)
    (found,) = put(steps, [dense_block(waiting, (3, 2), (4,), LIKE)], blocks)
    torch.testing.assert_close(found.value, dense_block(blocks, (3, 2), (4,), LIKE).value, rtol=0, atol=0)


def test_long_lists_need_values():
    """The coordinates of a long list are sorted: that takes tensors."""
    blocks = []
    for k in range(2, 2 + 2 * MOST_BLOCKS):
        label = Label(3)
        blocks.append(
            Block(torch.randn(3), (label,), (Affine(0, ((label, k),)),), (Affine(0, ((label, 2 * k + 1),)),))
        )
    _, waiting = wait(blocks)
    assert len(merge(blocks, (600,), (900,), LIKE)) == 1
    with pytest.raises(ValuesNeededError):
        merge(waiting, (600,), (900,), LIKE)


def test_what_is_known_now():
    """Numbers alone are worked with at once and stand among the steps; a tensor belongs to its call."""
    assert later(lambda a, b: a + b, (), 1.0, 2.0) == 3.0
    steps = Steps(1)
    value = Later(steps, 0, False)
    twice = later(lambda a, b: a * b, (), later(lambda a, b: a * b, (), value, 2.0), 2.0)
    assert len(steps.made) == 3  # the number stands there once
    assert steps.take([torch.tensor(3.0)])[twice.place] == 12
    with pytest.raises(ValuesNeededError):
        later(lambda a, b: a * b, (), value, torch.tensor(2.0))
    needed_now([1.0, torch.tensor(2.0)])
    with pytest.raises(ValuesNeededError):
        needed_now([1.0, value])
