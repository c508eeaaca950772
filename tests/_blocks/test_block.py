"""What blocks hold, for the table of the design: numbers stored, entries written."""

import pytest
import torch

from torchjac._blocks.block import Block, entries, identity, is_dense, labels, stored, tables_to
from torchjac._blocks.maps import Affine, Gather, Label, bare, constant
from torchjac.testing import check_rule

N, M, B, P, Q = 12, 5, 4, 3, 4
IDX = torch.tensor([3, 0, 3, 11, 7])
W = torch.randn(N, M, dtype=torch.float64)


@pytest.mark.parametrize(
    "f, shape, blocks, held, nnz",
    [
        (lambda x: x, (N,), 1, 0, N),
        (torch.sin, (N,), 1, N, N),
        (lambda x: x[1:], (N,), 1, 0, N - 1),
        (lambda x: x[IDX], (N,), 1, len(IDX), len(IDX)),
        (lambda x: x.sum(), (N,), 1, 0, N),
        (lambda x: x @ W, (B, N), 1, N * M, B * N * M),
        (lambda x: x.view(P, Q), (N,), 1, 0, N),
        (lambda x: x[1:] - x[:-1], (N,), 2, 0, 2 * (N - 1)),
    ],
    ids=["x", "sin", "slice", "index", "sum", "matmul", "view", "stencil"],
)
def test_table(f, shape, blocks: int, held: int, nnz: int) -> None:
    """The table of the design holds, number by number."""
    (jacobian,) = check_rule(f, torch.randn(shape, dtype=torch.float64))
    assert len(jacobian.blocks) == blocks
    assert jacobian.stored == held
    assert jacobian.nnz == nnz


def test_identity() -> None:
    """The identity has a label for each dim and holds nothing."""
    block = identity((2, 3))
    assert stored(block) == 0
    assert entries(block) == 6
    assert [label.size for label in labels(block)] == [2, 3]
    assert not is_dense(block, (2, 3, 2, 3))


def test_stored_counts_a_table_once() -> None:
    """An index tensor that two maps share is counted once."""
    label = Label(3)
    table = Gather(torch.arange(3), (label,))
    assert stored(Block(torch.ones(3), (label,), (table,), (table,))) == 6


def test_is_dense() -> None:
    """Dense: a label of its own for each dim, and a value over all of them."""
    i, j = Label(2), Label(3)
    whole = Block(torch.ones(2, 3), (i, j), (bare(i),), (bare(j),))
    assert is_dense(whole, (2, 3))
    assert not is_dense(whole, (2, 4))  # a corner of a larger matrix
    assert not is_dense(Block(torch.ones(2), (i,), (bare(i),), (bare(j),)), (2, 3))
    assert not is_dense(Block(torch.ones(2), (i,), (bare(i),), (bare(i),)), (2, 2))
    assert not is_dense(Block(1.0, (), (), ()), ())


def test_tables_to() -> None:
    """Index tensors follow the value to another device; affine maps have nothing to move."""
    label = Label(3)
    block = Block(1.0, (), (Gather(torch.arange(3), (label,)),), (bare(label),))
    moved = tables_to(block, torch.device("meta"))
    assert moved.out[0].index.device.type == "meta"
    assert moved.wrt == block.wrt


i, j, k = Label(5), Label(2), Label(3)


@pytest.mark.parametrize(
    "block, law",
    [
        (identity((5,)), "J[i; i] = 1, i<5"),
        (identity(()), "J[; ] = 1"),
        (Block(torch.ones(5), (i,), (bare(i),), (Affine(1, ((i, 1),)),)), "J[i; i+1] = value[i], i<5"),
        (Block(-2.0, (), (bare(i),), (Affine(4, ((i, -1),)),)), "J[i; -i+4] = -2, i<5"),
        (Block(1.0, (), (bare(j), bare(k)), (Affine(0, ((j, 3), (k, 1))),)), "J[i, j; 3i+j] = 1, i<2, j<3"),
        (Block(1.0, (), (Affine(0, ((j, 2), (k, -1))),), (constant(0),)), "J[2i-j; 0] = 1, i<2, j<3"),
        (Block(W, (k, j), (Gather(torch.arange(6).view(2, 3), (j, k)),), (bare(k),)),
         "J[index[i, j]; j] = value[j, i], i<2, j<3"),
    ],
)  # fmt: skip
def test_law(block, law: str) -> None:
    """A block prints as its law: a letter for each label, affine maps as sums, tables as `index`."""
    assert str(block) == law


def test_law_of_many_labels() -> None:
    """Labels beyond z are numbered, and no two have one name."""
    law = str(identity((2,) * 20))
    assert law.startswith("J[i, j, k, ")
    assert ", z, i1, j1; i, j" in law
