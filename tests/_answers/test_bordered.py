"""Block systems: a matrix of Jacobians as one."""

import pytest
import torch
from torch.func import grad

from torchjac import block, jacobian

X = torch.rand(6, dtype=torch.float64)
ENERGY = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + x.pow(4).sum()
RULES = lambda x: x.view(2, 3).prod(1)


def test_optimality_conditions() -> None:
    """The matrix of a constrained problem, its solution, and what it holds."""
    H, A = jacobian(grad(ENERGY))(X), jacobian(RULES)(X)
    K = block([[H, A.mT], [A, None]])
    dense = torch.cat(
        [torch.cat([H.to_dense(), A.to_dense().T], 1), torch.cat([A.to_dense(), torch.zeros(2, 2)], 1)]
    )
    torch.testing.assert_close(K.to_dense(), dense)
    assert K.nnz == H.nnz + 2 * A.nnz
    assert K.stored <= H.stored + 2 * A.stored
    right = torch.rand(8, dtype=torch.float64)
    torch.testing.assert_close(K.solve(right), torch.linalg.solve(dense, right))


def test_shapes_are_flattened() -> None:
    """Parts of any shapes, tables and rows of one part among them, stand where their flattened matrices do."""
    table = torch.tensor([3, 1])
    a = jacobian(lambda x: x.sin().T)(torch.rand(2, 3, dtype=torch.float64))
    b = jacobian(lambda x: x[table].sum() * x.new_ones(3, 2))(torch.rand(4, dtype=torch.float64))
    found = block([[a, b]])
    torch.testing.assert_close(
        found.to_dense(), torch.cat([a.to_dense().reshape(6, 6), b.to_dense().reshape(6, 4)], 1)
    )
    torch.testing.assert_close(found.to_sparse(torch.sparse_csr).to_dense(), found.to_dense())


def test_gradients_pass() -> None:
    """A block system is differentiable in the point where its parts were taken."""
    solved = lambda x: block(
        [[jacobian(grad(ENERGY))(x), jacobian(RULES)(x).mT], [jacobian(RULES)(x), None]]
    ).solve(torch.ones(8).double())
    assert torch.autograd.gradcheck(solved, (X.clone().requires_grad_(),))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (lambda J: [], ValueError, "rows of equal length"),
        (lambda J: J, TypeError, "needs a list of rows"),
        (lambda J: [J, J], TypeError, "needs a list of rows"),
        (lambda J: [[J], [J, J]], ValueError, "rows of equal length"),
        (lambda J: [[J, J[1:]]], ValueError, r"row 0 must have parts of one size, got sizes \[3, 2\]"),
        (lambda J: [[J, None]], ValueError, "column 1 .* only zeros"),
        (lambda J: [[J, J.to_dense()]], TypeError, "Jacobian or None, got Tensor"),
        (lambda J: [[J, J.to(torch.float64)]], ValueError, "one dtype and device"),
    ],
)
def test_errors(parts, error, message) -> None:
    """What does not fit together is told by row or column."""
    with pytest.raises(error, match=message):
        block(parts(jacobian(torch.sin)(torch.zeros(3))))
