"""Products with a constant sparse matrix: its entries, as coordinates."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

import torchjac
from torchjac.testing import check_jacobian, loop_jacobian

s = Sampler()

AT = torch.tensor([[0, 1, 2, 5, 5], [0, 3, 1, 0, 2]])
#: Five entries in (6, 4), one of them in three pieces, and a matrix without entries
MATRIX = torch.sparse_coo_tensor(AT, s(5), (6, 4), is_coalesced=True, check_invariants=True)
PIECES = torch.sparse_coo_tensor(
    torch.tensor([[0, 1, 0, 0], [2, 3, 2, 2]]), s(4), (6, 4), check_invariants=True
)
EMPTY = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), s(0), (6, 4), check_invariants=True)
MATRICES = [MATRIX, MATRIX.to_sparse_csr(), MATRIX.to_sparse_csc(), PIECES, EMPTY]

CASES = [
    case(
        "SparseAddmmBackward0",
        lambda b: torch.sparse.mm(MATRIX, b),
        s(4, 3),
        stored=[15],
        blocks=[1],
    ),
    case(
        "SparseAddmmBackward0",
        lambda c, b: torch.sparse.addmm(c, MATRIX, b, beta=0.5, alpha=2.0),
        s(6, 2),
        s(4, 2),
        stored=[0, 15],
    ),
    case("MmBackward0", lambda b: MATRIX @ b, s(4, 1), stored=[15]),
    case("MmBackward0", lambda a: a @ MATRIX, s(3, 6), stored=[15]),
    case("MvBackward0", lambda x: MATRIX @ x, s(4), stored=[15]),
    case(
        "AddmmBackward0", lambda c, b: torch.addmm(c, MATRIX, b, alpha=3.0), s(6, 2), s(4, 2), stored=[0, 15]
    ),
]


@over_cases(CASES)
def test_sparse_factor(one: Case) -> None:
    """A value and two positions for each entry of the matrix, whatever stands beside it."""
    check(one)


@pytest.mark.parametrize("matrix", MATRICES, ids=["coo", "csr", "csc", "pieces", "empty"])
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_layouts(matrix, columns) -> None:
    """Every layout gives the same coordinates, each entry once, and Hessians through the product hold."""

    def f(b):
        return torch.sparse.mm(matrix, b.sin()) ** 2

    (J,) = check_jacobian(f, s(4, columns))
    assert J.nnz == len(matrix.to_sparse_coo().coalesce().values()) * columns

    def gradient(b):
        return torch.autograd.grad(f(b).sum(), b, create_graph=True)[0]

    b = s(4, columns)
    expected = loop_jacobian(gradient, b.clone())
    torch.testing.assert_close(torchjac.hessian(lambda b: f(b).sum())(b), expected)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_complex_matrix(layout: torch.layout) -> None:
    """Complex entries are as exact as real ones: one for each, conjugated on the way down."""
    diagonal = torch.diag(torch.ones(400, dtype=torch.complex128)).to_sparse(layout=layout)
    assert torchjac.jacobian(lambda x: (diagonal @ torch.complex(x, x)).real)(s(400)).nnz == 400
    dense = torch.complex(MATRIX.to_dense(), 2 * MATRIX.to_dense())
    matrix = dense.to_sparse(layout=layout)
    f = lambda x: torch.view_as_real(matrix @ torch.complex(x, x.sin()))
    (J,) = check_jacobian(f, s(4, 2))
    assert J.nnz == 5 * 2 * 2


def test_a_large_matrix() -> None:
    """A hundred thousand rows: five numbers and ten positions each, and nothing dense on the way."""
    n = 100_000
    at = torch.arange(n)
    rows = at.repeat(5)
    columns = torch.cat([(at + k * k) % n for k in range(5)])
    matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), s(5 * n), (n, n), check_invariants=True)
    J = torchjac.jacobian(lambda x: torch.tanh(matrix @ x) * 2)(s(n))
    assert J.nnz == 5 * n
    assert J.stored == 15 * n
    assert not J.report.lost


def test_the_matrix_is_not_the_answer() -> None:
    """What is written into the answer's values does not change the matrix."""
    matrix = MATRIX.clone()
    J = torchjac.jacobian(lambda x: matrix @ x)(s(4))
    J.blocks[0].value.zero_()
    assert bool((matrix.coalesce().values() == MATRIX.values()).all())
