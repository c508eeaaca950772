"""What is told of a matrix by its blocks."""

import pytest
import torch

from torchjac import jacobian
from torchjac._answers.arithmetic import add_diagonal
from torchjac._answers.consolidate import consolidated
from torchjac._answers.forms import SumOfBlocks
from torchjac._answers.matrix_kind import is_symmetric
from torchjac._answers.to_dense import to_dense
from torchjac._blocks.block import Block
from torchjac._blocks.block_views import swapped
from torchjac._blocks.maps import Gather, Label, bare

X = torch.rand(6, dtype=torch.float64)
TABLE = torch.tensor([0, 2, 2, 5])


def test_gram_matrices_are_symmetric() -> None:
    """By tables each number stands for two, on or beside a diagonal that was added to."""
    jac = jacobian(lambda x: x[TABLE] * x[TABLE.flip(0)].sin())(X)
    pattern = consolidated(jac.form).gram(jac.form, torch.rand(4, dtype=torch.float64))
    assert is_symmetric(pattern)
    damped = add_diagonal(SumOfBlocks((6,), (6,), jac.dtype, jac.device, tuple(pattern)), 2.0)
    assert is_symmetric(damped.blocks)
    assert torch.equal(to_dense(damped), to_dense(damped).T)


def test_what_is_not_told() -> None:
    """Values of other tensors are not compared; the same values over other labels are other entries."""
    jac = jacobian(lambda x: x[1:] * x[:-1])(X)
    assert not is_symmetric(jac.gram().blocks)
    assert not is_symmetric(jacobian(lambda x: x.roll(1) * x)(X).blocks)
    i, j = Label(3), Label(3)
    value = torch.rand(3, 3, dtype=torch.float64)
    out, wrt = (bare(i),), (Gather(torch.tensor([1, 2, 0]), (j,)),)
    block = Block(value, (i, j), out, wrt)
    assert is_symmetric([block, swapped(block)])
    assert not is_symmetric([block, swapped(block)._replace(on=(j, i))])
    assert not is_symmetric([block, swapped(block), block])


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_and_a_diagonal(count) -> None:
    """No blocks at all are symmetric, and so is a diagonal."""
    assert is_symmetric(jacobian(torch.sin)(X).blocks[:count])


@pytest.mark.parametrize(
    "f, shape, kind, solved_as",
    [
        (torch.sin, (5,), "diagonal", "diagonal"),
        (lambda x: x.softmax(-1), (9, 5), "block-diagonal", "block-diagonal"),
        (lambda x: x.roll(1, -1) * x, (2, 100), "block-diagonal", "sparse"),
        (lambda x: x.roll(1, -1) * x, (1, 40), "sparse", "dense"),
        (lambda x: x.roll(1) * x, (100,), "sparse", "sparse"),
        (lambda x: x.softmax(0), (5,), "dense", "dense"),
        (lambda x: x[:0], (5,), "dense", "dense"),
        (lambda x: x * x.sum(), (1,), "diagonal", "diagonal"),
    ],
)
def test_kind_is_the_matrix_and_solved_as_its_size(f, shape, kind, solved_as) -> None:
    """What the zeros are is one thing; another, what is faster at this size."""
    jac = jacobian(f)(torch.rand(shape, dtype=torch.float64))
    assert (jac.kind, jac.solved_as) == (kind, solved_as)
