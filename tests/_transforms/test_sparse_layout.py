"""Sparse matrices written by the program of a call: values and places against the loop, costs counted."""

import pytest
import torch

from torchjac import hessian, jacrev
from torchjac._accumulate.planned import PROGRAMS
from torchjac._answers import assembly
from torchjac.testing import loop_jacobian

TABLE = torch.tensor([2, 0, 2, 1, 4])
OTHER = torch.tensor([1, 3, 0])
LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr)

FUNCTIONS = {
    "stencil": lambda x: x[1:] * x[:-1] + 2 * x[1:],
    "tables": lambda x: x[TABLE].sin() * x[TABLE.flip(0)],
    "tables met twice": lambda x: torch.zeros(4, dtype=x.dtype).index_add(0, OTHER, x[OTHER] ** 2 * x[:3]),
    "domain": lambda x: x.cumsum(0) * x,
    "factors": lambda x: (x.view(1, -1).expand(9, -1).sum(0).sum() * x).exp(),
    "rows and tables": lambda x: torch.cat([x[TABLE] ** 2, x[1:3] * x[:2]]),
    "linear": lambda x: torch.ones(3, 5, dtype=x.dtype).triu() @ x,
    "nothing": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name, layout) -> None:
    """Calls that come again, by a program that is recorded, run and compiled, give what the loop does."""
    f = FUNCTIONS[name]
    sparse = jacrev(f, layout=layout)
    if name == "nothing" and layout is torch.sparse_bsr:
        return
    for k in range(10):
        x = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        found = sparse(x)
        torch.testing.assert_close(found.to_dense(), loop_jacobian(f, x))
    assert PROGRAMS.programs


@pytest.mark.parametrize("triangle", ["lower", "upper"])
@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_triangles(layout, triangle) -> None:
    """Halves of a Hessian, of blocks on one side of the diagonal and of tables on both."""
    f = lambda x: (x[1:] * x[:-1] ** 2).sum() + (x[TABLE] * x[TABLE.flip(0)].sin()).sum()
    half = hessian(f, layout=layout, triangle=triangle)
    for k in range(10):
        x = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        whole = loop_jacobian(jacrev(f), x)
        torch.testing.assert_close(half(x).to_dense(), whole.tril() if triangle == "lower" else whole.triu())


def test_tables_that_change() -> None:
    """A table with other entries has another pattern, be it written into in place."""
    table = TABLE.clone()
    sparse = jacrev(lambda x: x[table] ** 2, layout=torch.sparse_csr)
    x = torch.arange(1.0, 6, dtype=torch.float64)
    for at in (0, 0, 0, 3, 1, 1, 0):
        table[0] = at
        expected = torch.zeros(5, 5, dtype=torch.float64)
        expected[torch.arange(5), table] = 2 * x[table]
        torch.testing.assert_close(sparse(x).to_dense(), expected)


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc])
def test_tensors_are_the_callers_own(layout) -> None:
    """What is written into the indices and values of one answer is not seen in the next."""
    f = FUNCTIONS["tables"]
    sparse, x = jacrev(f, layout=layout), torch.rand(5, dtype=torch.float64)
    expected = loop_jacobian(f, x)
    for _ in range(10):
        found = sparse(x)
        torch.testing.assert_close(found.to_dense(), expected)
        csr = layout is torch.sparse_csr
        for tensor in (
            found.crow_indices() if csr else found.ccol_indices(),
            found.col_indices() if csr else found.row_indices(),
            found.values(),
        ):
            tensor.zero_()


@pytest.mark.parametrize("name", ["stencil", "tables"])
def test_the_pattern_is_part_of_the_program(name, monkeypatch) -> None:
    """A call that comes again looks no pattern up: it was found when the program was recorded."""
    looked_up = []
    find = assembly.pattern_of
    monkeypatch.setattr(assembly, "pattern_of", lambda *args: looked_up.append(args) or find(*args))
    sparse, x = jacrev(FUNCTIONS[name], layout=torch.sparse_csr), torch.rand(5, dtype=torch.float64)
    for _ in range(4):
        sparse(x)
    assert len(looked_up) == 1


def test_patterns_count_as_bytes_of_programs(monkeypatch) -> None:
    """The index tensors of a matrix are bytes of its program, and one past the bound drives no other out."""
    sparse = jacrev(FUNCTIONS["tables"], layout=torch.sparse_csr)
    x = torch.rand(5, dtype=torch.float64)
    sparse(x)
    assert PROGRAMS.programs == 1
    monkeypatch.setattr(PROGRAMS, "most", PROGRAMS.bytes + 20_000)
    n = 10_000
    many = jacrev(lambda x: x[torch.arange(n).flip(0)] ** 2, layout=torch.sparse_csr)
    y = torch.rand(n, dtype=torch.float64)
    for _ in range(3):
        torch.testing.assert_close(many(y).values(), 2 * y.flip(0))
    assert PROGRAMS.programs == 1


def test_gradients_and_batches_go_another_way() -> None:
    """An answer that is differentiable is not written in place; its values have the loop's derivative."""
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    values = lambda x: jacrev(FUNCTIONS["tables"], layout=torch.sparse_csr)(x).values()
    assert torch.autograd.gradcheck(values, (x,))
