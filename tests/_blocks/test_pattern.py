"""Patterns: where entries stand in a matrix by rows, by algebra or by a counting sort, and their values."""

import pytest
import torch
from tests._answers.cases import random_jacobians
from tests._blocks.blocks import CPU, LIKE, total
from torch.func import grad

from torchjac import jacobian
from torchjac._blocks import fill
from torchjac._blocks import pattern as pattern_module
from torchjac._blocks import pattern_cache as module
from torchjac._blocks.block import Block
from torchjac._blocks.maps import Affine, Gather, Label, bare
from torchjac._blocks.pattern import Pattern
from torchjac._blocks.pattern_cache import pattern_of
from torchjac.testing import loop_jacobian

N = 6
TABLE = torch.tensor([2, 0, 2, 1])


def chain(x):
    """Rosenbrock's function: a tridiagonal Hessian whose diagonal comes in two parts."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def heat(u):
    """Five points around each of a periodic grid: pieces at the borders stand in another order than inside."""
    return sum(torch.roll(u, by, dim) for by in (1, -1) for dim in (0, 1)) - 4 * u + u**3


def interleaved(x):
    """Two fields that take turns in one vector, and a row that is read backwards."""
    u, v = x.view(-1, 2).unbind(1)
    return torch.stack([u * v.roll(1), v.flip(0)], 1).flatten()


def damped(x):
    """Small matrices on the diagonal, and numbers on the diagonal of each."""
    return (x.view(-1, 3).softmax(-1) + 2 * x.view(-1, 3)).flatten()


#: Functions, and the shape of their argument.
AFFINE = {
    "chain": (grad(chain), (7,)),
    "grid": (heat, (4, 5)),
    "interleaved": (interleaved, (8,)),
    "damped": (damped, (9,)),
    "strided": (lambda x: torch.cat([x[::2] ** 2, x[1:4].sin()]), (7,)),
    "one row": (lambda x: x.square().sum(), (5,)),
    "one column": (lambda x: x.expand(4) ** 2, (1,)),
    "nothing": (lambda x: x[:0], (4,)),
    "roll": (lambda x: x.roll(2) * x, (5,)),
    "outer fields": (lambda x: torch.stack([x[0] * x[1], x[0].sin() + x[1]]) + x.roll(1, 1), (2, 5)),
    "fields": (lambda x: x - torch.stack([heat(x[0]) * x[1], x[0] * x[1]]), (2, 4, 5)),
}


def matrix_of(jac):
    """The matrix by rows that a pattern gives, checked for sorted indices each named once."""
    pattern = Pattern(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
    values = pattern.fill(jac.blocks, jac)
    size = (pattern.rows, pattern.columns)
    assert pattern.nnz == values.numel()
    torch.testing.assert_close(
        pattern.row, torch.arange(size[0], dtype=torch.int32).repeat_interleave(pattern.begin.diff())
    )
    return torch.sparse_csr_tensor(
        pattern.begin, pattern.index, values, size, check_invariants=True
    ).to_dense()


def test_random_blocks() -> None:
    """Any blocks, affine or not, give the matrix that they mean."""
    for jac, dense in random_jacobians(150, most=3):
        torch.testing.assert_close(matrix_of(jac).flatten(), dense.flatten())


@pytest.mark.parametrize("name", AFFINE)
def test_by_algebra(name, monkeypatch) -> None:
    """Maps without tables take no sort, and the matrix is the same."""
    f, shape = AFFINE[name]
    x = torch.randn(shape, dtype=torch.float64)
    jac = jacobian(f)(x)
    expected = jac.to_dense().flatten()
    monkeypatch.setattr(pattern_module, "sort_entries", lambda *_: pytest.fail("entries were sorted"))
    torch.testing.assert_close(matrix_of(jac).flatten(), expected)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("most", [1, 7, 1 << 19])
def test_written_in_parts(name, most, monkeypatch) -> None:
    """However many entries are written at once, and numbers of a row in one go, the values are the same."""
    monkeypatch.setattr(pattern_module, "ENTRIES_AT_ONCE", most)
    monkeypatch.setattr(fill, "MANY", 0)
    f, shape = AFFINE[name]
    x = torch.randn(shape, dtype=torch.float64)
    for jac in (jacobian(f)(x), jacobian(lambda x: f(x).flip(0))(x)):
        torch.testing.assert_close(matrix_of(jac).flatten(), jac.to_dense().flatten())


def test_random_blocks_in_parts(monkeypatch) -> None:
    """Any blocks are the same in parts of three entries."""
    monkeypatch.setattr(pattern_module, "ENTRIES_AT_ONCE", 3)
    monkeypatch.setattr(fill, "MANY", 0)
    for jac, dense in random_jacobians(150, most=3):
        torch.testing.assert_close(matrix_of(jac).flatten(), dense.flatten())


@pytest.mark.parametrize("most", [1, 5, 100])
def test_tables_end_to_end(most, monkeypatch) -> None:
    """However many entries of blocks with tables go to their places in one call, the values are the same."""
    monkeypatch.setattr(pattern_module, "JOINED", most)
    monkeypatch.setattr(pattern_module, "AT_ONCE", most)
    for jac, dense in random_jacobians(150, most=3):
        torch.testing.assert_close(matrix_of(jac).flatten(), dense.flatten())


def test_tables_are_compared_once(monkeypatch) -> None:
    """What several blocks share is one comparison; a table of another block's entries is another pattern."""
    label = Label(4)
    x, y = (bare(label),), (Gather(TABLE, (label,)),)
    blocks = [Block(1.0, (), x, y), Block(2.0, (), y, y), Block(3.0, (), y, x)]
    pattern = Pattern(blocks, (4,), (4,), CPU)
    compared = []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: compared.append(a) or equal(a, b))
    key, tables = pattern_module.law(blocks, (4,), (4,), CPU)
    assert pattern.is_of(key, tables)
    assert len(compared) == 1
    other = (Gather(TABLE.flip(0), (label,)),)
    mixed = [blocks[0], blocks[1], Block(3.0, (), other, x)]
    assert not pattern.is_of(*pattern_module.law(mixed, (4,), (4,), CPU))
    assert not pattern.is_of(*pattern_module.law(blocks[:2], (4,), (4,), CPU))


@pytest.mark.parametrize("name", ["damped", "grid", "fields"])
def test_numbers_are_written_with_values(name, monkeypatch) -> None:
    """Numbers and values on the same entries are one pass: nothing is added to what was written, but inside others."""
    f, shape = AFFINE[name]
    jac = jacobian(f)(torch.rand(shape, dtype=torch.float64))
    pattern = Pattern(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
    for _, parts in pattern._parts:
        for part, targets in parts:
            for group, found in zip(part.groups, targets, strict=True):
                assert len(found.here) + len(found.rest) == len(group)
                places = {(piece.offset, str(piece.steps)) for piece in found.rest}
                assert (found.first.offset, str(found.first.steps)) not in places
    torch.testing.assert_close(matrix_of(jac).flatten(), jac.to_dense().flatten())


def test_an_order_that_changes_is_sorted() -> None:
    """Where columns of two blocks cross between rows no algebra is known; the matrix is right all the same."""
    jac = jacobian(lambda x: x + 2 * x.flip(0))(torch.zeros(N, dtype=torch.float64))
    torch.testing.assert_close(
        matrix_of(jac), torch.eye(N, dtype=torch.float64) + 2 * torch.eye(N, dtype=torch.float64).flip(0)
    )


def test_made_once() -> None:
    """Jacobians of one make share a pattern; other tables, though of the same shape, have another."""
    x = torch.rand(N, dtype=torch.float64)
    table = TABLE.clone()
    for f in (lambda x: x[1:] * x[:-1], lambda x: x[table] ** 2):
        first, second = (jacobian(f)(x * k) for k in (1, 2))
        find = lambda jac: pattern_of(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
        assert find(first) is find(second)
    before = find(second)
    table[0] = 5
    after = find(jacobian(f)(x))
    assert after is not before
    assert after.index.tolist() == [5, 0, 2, 1]
    assert before.index.tolist() == [2, 0, 2, 1]


def test_what_is_kept_is_bounded(monkeypatch) -> None:
    """Patterns that were not met for long are forgotten where all together hold too many bytes, notes counted."""
    store = module._Patterns()
    monkeypatch.setattr(module, "MOST_BYTES", 4000)
    find = lambda jac: store.find(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
    first = jacobian(lambda x: x[TABLE] ** 2)(torch.rand(N, dtype=torch.float64))
    kept = find(first)
    assert find(first) is kept
    kept.notes["plan"] = [torch.zeros(600, dtype=torch.int64)]
    assert kept.nbytes > 4800
    find(jacobian(lambda x: x[1:] * x[:-1])(torch.rand(N, dtype=torch.float64)))
    assert find(first) is not kept


def test_entries_on_one_place_are_summed() -> None:
    """A table that names a place twice, and blocks that stand on each other."""
    label = Label(4)
    value = torch.arange(1.0, 5.0, dtype=torch.float64)
    blocks = [
        Block(value, (label,), (Affine(0, ()),), (Gather(TABLE, (label,)),)),
        Block(10.0, (), (Affine(1, ()),), (Affine(1, ()),)),
        Block(value, (label,), (Affine(1, ()),), (bare(label),)),
    ]
    pattern = Pattern(blocks, (2,), (4,), CPU)
    assert pattern.nnz == 7
    found = torch.sparse_csr_tensor(pattern.begin, pattern.index, pattern.fill(blocks, LIKE), (2, 4))
    torch.testing.assert_close(found.to_dense(), total(blocks, (2, 4)))


@pytest.mark.parametrize("name", ["damped", "grid", "strided"])
def test_differentiable(name) -> None:
    """Gradients reach the values of blocks, by pieces and by tables."""
    f, shape = AFFINE[name]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for wrapped in (f, lambda x: f(x).flatten()[TABLE]):
        to_values = lambda x: jacobian(wrapped)(x).to_sparse(torch.sparse_csr).values()
        assert torch.autograd.gradcheck(to_values, (x,))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 1, 3), (3, 4, 1), (1, 1, 5)], ids=str)
def test_dims_of_size_one(shape) -> None:
    """Blocks on the same entries, of which one has its dims of size 1 elsewhere, are added where they stand."""
    f = lambda x: torch.nn.functional.local_response_norm(x, 3)
    x = torch.rand(shape, dtype=torch.float64)
    matrix = jacobian(f)(x).to_sparse(torch.sparse_csr).to_dense()
    torch.testing.assert_close(matrix.reshape(*shape, *shape), loop_jacobian(f, x))


def test_numbers_as_they_are_held() -> None:
    """Each nonzero is among the numbers of the blocks, those that two of them share are there once; sums are not."""
    label = Label(3)
    rows, columns = Gather(torch.tensor([0, 2, 1]), (label,)), Gather(torch.tensor([3, 0, 4]), (label,))
    shared = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
    blocks = [
        Block(shared, (label,), (rows,), (columns,)),
        Block(shared, (label,), (columns,), (rows,)),
        Block(2.0, (), (rows,), (rows,)),
    ]
    pattern = Pattern(blocks, (5,), (5,), CPU)
    for _ in range(2):
        numbers, source, _ = pattern.held(blocks, LIKE)
        assert numbers.numel() == 6
        assert torch.equal(numbers[source.long()], pattern.fill(blocks, LIKE))
    other = [blocks[0], blocks[1]._replace(value=shared + 1), blocks[2]]
    numbers, source, _ = pattern.held(other, LIKE)
    assert numbers.numel() == 9
    assert torch.equal(numbers[source.long()], pattern.fill(other, LIKE))
    assert Pattern([*blocks, blocks[0]], (5,), (5,), CPU).held([*blocks, blocks[0]], LIKE) is None
    affine = [Block(shared, (label,), (bare(label),), (bare(label),))]
    assert Pattern(affine, (3,), (3,), CPU).held(affine, LIKE) is None


def test_rows_in_another_order() -> None:
    """Where columns stand in another order in some rows, short digits of the rows are cut at each position."""
    s, i = Label(2), Label(4)
    first = Block(torch.rand(2, 4, dtype=torch.float64), (s, i), (bare(s), bare(i)), (Affine(0, ()), bare(i)))
    t, j = Label(2), Label(4)
    diagonal = Block(2.0, (), (bare(t), bare(j)), (bare(t), bare(j)))
    blocks = [first, diagonal]
    pattern = Pattern(blocks, (2, 4), (2, 4), CPU)
    assert pattern._boxes is not None
    found = torch.sparse_csr_tensor(pattern.begin, pattern.index, pattern.fill(blocks, LIKE), (8, 8))
    torch.testing.assert_close(found.to_dense(), total(blocks, (2, 4, 2, 4)).reshape(8, 8))
