"""Blocks that share dims and are full between the others become one; all others stay as they are."""

import pytest
import torch
from tests._blocks.blocks import LIKE, spelled_out

import torchjac
from torchjac import jacobian
from torchjac._blocks.batched import full_between, held_between, in_one, shared_dims
from torchjac._blocks.block import Block, stored
from torchjac._blocks.maps import Affine, Gather, Label, bare
from torchjac._blocks.merge import merge
from torchjac.testing import loop_jacobian


def number(*sizes):
    """Values at random."""
    return torch.rand(sizes, dtype=torch.float64)


def batch(size=5, rows=2, columns=3):
    """Blocks of a batch: the diagonal of each small matrix, its last column, and what is left of the diagonal."""
    found = []
    for first, count, steps in ((0, rows, (1, 1)), (0, rows, (1, 0)), (1, rows - 1, (1, 1))):
        b, k = Label(size), Label(count)
        wrt = Affine(0, ((k, 1),)) if steps[1] else Affine(columns - 1, ())
        found.append(Block(number(size, count), (b, k), (bare(b), Affine(first, ((k, 1),))), (bare(b), wrt)))
    b, k = Label(size), Label(columns - 1)
    found.append(Block(number(size), (b,), (bare(b), Affine(0, ())), (bare(b), Affine(1, ((k, 1),)))))
    return found


def check(blocks, out_shape, wrt_shape):
    """Compare the sum; return the one block."""
    one = in_one(blocks, out_shape, wrt_shape, LIKE)
    if one is not None:
        expected = sum(spelled_out(block, out_shape + wrt_shape) for block in blocks)
        torch.testing.assert_close(spelled_out(one, out_shape + wrt_shape), expected)
        assert stored(one) <= sum(map(stored, blocks))
    return one


def test_a_batch_of_full_matrices() -> None:
    """What names each entry of each small matrix is one tensor; the batch dim comes last in memory."""
    assert check(batch(), (5, 2), (5, 3)) is None  # as many numbers as there would be
    b = Label(5)
    blocks = [*batch(), Block(number(5), (b,), (bare(b), Affine(1, ())), (bare(b), Affine(0, ())))]
    one = check(blocks, (5, 2), (5, 3))
    assert one.value.shape == (2, 3, 5)
    (merged,) = merge(blocks, (5, 2), (5, 3), LIKE)
    assert torch.equal(merged.value, one.value)


@pytest.mark.parametrize("varies", [True, False])
def test_full_between_shared_dims(varies) -> None:
    """Whatever the blocks name, one holds a number for each entry of a sample, and one for all samples if none vary."""
    blocks = batch()[:2] if varies else [block._replace(value=2.0, on=()) for block in batch()[:2]]
    shapes = (5, 2), (5, 3)
    pairs = shared_dims(blocks, *shapes)
    assert pairs == ((0, 0),)
    one = full_between(blocks, pairs, *shapes, LIKE)
    assert stored(one) == held_between(blocks, pairs, *shapes) == (30 if varies else 6)
    expected = sum(spelled_out(block, (5, 2, 5, 3)) for block in blocks)
    torch.testing.assert_close(spelled_out(one, (5, 2, 5, 3)), expected)
    b, k = Label(5), Label(2)
    moved = Block(1.0, (), (bare(b), bare(k)), (Affine(4, ((b, -1),)), bare(k)))
    assert shared_dims([*blocks, moved], *shapes) == ()


def test_an_entry_is_missing() -> None:
    """Without the entry in a corner nothing is written: structure would be lost."""
    *most, last = batch()
    assert check([*most, *most], (5, 2), (5, 3)) is None
    assert check([*most, last, last], (5, 2), (5, 3)) is not None
    assert merge([*most, last], (5, 2), (5, 3), LIKE) == [*most, last]


def test_fewer_numbers_than_entries() -> None:
    """Blocks that hold fewer numbers stay: a full one that is constant, beside a diagonal."""
    b, k, j = Label(5), Label(2), Label(2)
    full = Block(number(5), (b,), (bare(b), bare(k)), (bare(b), bare(j)))
    c, i = Label(5), Label(2)
    diagonal = Block(number(5, 2), (c, i), (bare(c), bare(i)), (bare(c), bare(i)))
    assert check([full, diagonal], (5, 2), (5, 2)) is None
    assert check([full, diagonal, diagonal], (5, 2), (5, 2)) is not None


def test_constant_along_a_shared_dim() -> None:
    """A dim along which no value varies is none of the one value: the same matrix for all of a batch."""
    blocks = []
    for _ in range(2):
        b, k, j = Label(5), Label(2), Label(3)
        blocks.append(Block(number(2, 3), (k, j), (bare(b), bare(k)), (bare(b), bare(j))))
    assert check(blocks, (5, 2), (5, 3)).value.shape == (2, 3)


def test_two_shared_dims_in_another_order() -> None:
    """Dims stand elsewhere in the input; a dim that only some blocks share is none."""
    blocks = []
    for _ in range(2):
        a, b, k, j = Label(4), Label(5), Label(2), Label(3)
        blocks.append(
            Block(number(4, 2, 5, 3), (a, k, b, j), (bare(a), bare(k), bare(b)), (bare(b), bare(j), bare(a)))
        )
    assert check(blocks, (4, 2, 5), (5, 3, 4)).value.shape == (2, 3, 4, 5)
    a, b = Label(4), Label(4)
    apart = Block(number(4, 4), (a, b), (bare(a),), (bare(b),))
    diagonal = Block(number(4), (a,), (bare(a),), (bare(a),))
    assert check([apart, diagonal], (4,), (4,)) is None


def test_tables_and_other_ranges() -> None:
    """A table, or a label over a part of a dim, shares nothing that is known."""
    b, k = Label(5), Label(2)
    table = Block(number(5, 2), (b, k), (bare(b), bare(k)), (Gather(torch.arange(5), (b,)),))
    assert check([table, table], (5, 2), (5,)) is None
    for size, label in ((5, Label(4)), (1, Label(1))):
        part = Block(number(label.size), (label,), (bare(label),), (bare(label),))
        assert check([part, part], (size,), (size,)) is None


def turned(x):
    """Rotate by the size of a vector, and project: pinhole cameras."""
    axis, p = x[:, :3], x[:, 3:6]
    moved = p + torch.linalg.cross(axis, p) * axis.square().sum(-1, keepdim=True)
    return moved[:, :2] / (3 + moved[:, 2:] ** 2)


@pytest.mark.parametrize("size", [1, 7])
def test_cameras(size) -> None:
    """Each pair of coordinates depends on all six numbers of its row, and no more than these are stored."""
    x = torch.rand(size, 6, dtype=torch.float64)
    jac = jacobian(turned)(x)
    torch.testing.assert_close(jac.to_dense(), loop_jacobian(turned, x))
    assert jac.nnz == size * 12
    assert jac.stored == size * 12
    compiled = torchjac.compile(jacobian(turned), backend="eager")(x)
    torch.testing.assert_close(compiled.to_dense(), jac.to_dense())
    assert compiled.stored == jac.stored
    y = x.clone().requires_grad_()
    values = torch.rand(size, 2, size, 6, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((values * whole).sum(), y)[0]
        for whole in (jacobian(turned)(y).to_dense(), torch.func.jacrev(turned)(y))
    )
    torch.testing.assert_close(found, expected)
