"""One of low rank plus one with structure: kept apart, multiplied and solved by its terms."""

import pytest
import torch
from tests._answers.cases import chained

from torchjac import jacobian

N, RANK = 90, 4
WIDE = torch.randn(N, RANK, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NARROW = torch.randn(RANK, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
X = torch.linspace(-1, 1, N, dtype=torch.float64)


def low(x):
    """A Jacobian that goes through four numbers."""
    outer = jacobian(lambda z: WIDE @ z.tanh())(NARROW @ x)
    return chained(outer, jacobian(lambda x: NARROW @ x)(x))


#: What is added to it.
SUMS = {
    "number": lambda x: low(x).add_diagonal(2.0),
    "diagonal": lambda x: low(x).add_diagonal(2 + x),
    "band": lambda x: low(x) + jacobian(lambda x: 4 * x + x.roll(1).sin())(x),
    "twice": lambda x: (low(x).add_diagonal(1.0) - jacobian(lambda x: x.roll(2))(x)).add_diagonal(3.0),
    "scaled": lambda x: -0.5 * low(x).add_diagonal(2.0),
}


@pytest.mark.parametrize("name", SUMS)
def test_sum(name) -> None:
    """It holds what its terms do, and products, systems and determinants are those of the dense matrix."""
    J = SUMS[name](X)
    assert J.kind == "low-rank plus"
    assert J.stored <= 2 * N * RANK + 4 * N
    assert "terms=2" in repr(J)
    v, right = torch.randn(N, dtype=torch.float64), torch.randn(N, 3, dtype=torch.float64)
    products = J @ v, v @ J, J.matmat(right)
    solved, back, slogdet = J.solve(right), J.mT.solve(v), J.slogdet()
    assert "blocks" not in vars(J.form)  # nothing was multiplied out
    dense = J.to_dense()
    for found, expected in zip(products, (dense @ v, v @ dense, dense @ right), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(solved, torch.linalg.solve(dense, right))
    torch.testing.assert_close(back, torch.linalg.solve(dense.T, v))
    expected = torch.linalg.slogdet(dense)
    assert slogdet.sign == expected.sign
    torch.testing.assert_close(slogdet.logabsdet, expected.logabsdet)


def test_the_rest_of_the_questions() -> None:
    """Diagonals, rows, other products and forms see the blocks of the sum."""
    J = SUMS["band"](X)
    dense = J.to_dense()
    torch.testing.assert_close(J.diagonal(), dense.diagonal())
    torch.testing.assert_close(J.row(3), dense[3])
    torch.testing.assert_close(J[2:5].to_dense(), dense[2:5])
    torch.testing.assert_close((J @ J.mT).to_dense(), dense @ dense.T)
    torch.testing.assert_close(J.gram().to_dense(), dense.T @ dense)
    torch.testing.assert_close(J.to(torch.float32).to_dense(), dense.float())
    torch.testing.assert_close((J * X).to_dense(), dense * X[:, None])
    torch.testing.assert_close((low(X) + low(X)).to_dense(), 2 * low(X).to_dense())


def test_a_singular_term() -> None:
    """Where what is added has no inverse but the sum has, the sum is written out."""
    shift = torch.ones(N, dtype=torch.float64)
    shift[:2] = 0
    J = low(X).add_diagonal(shift)
    right = torch.randn(N, dtype=torch.float64)
    torch.testing.assert_close(J @ J.solve(right), right)
    torch.testing.assert_close(J.slogdet().logabsdet, torch.linalg.slogdet(J.to_dense()).logabsdet)


def test_gradients() -> None:
    """Solutions are differentiable in the point and the right side."""
    some = torch.arange(N) < 3
    right = torch.randn(N, dtype=torch.float64)
    solved = lambda part, right: SUMS["diagonal"](X.masked_scatter(some, part)).solve(right)[:5]
    assert torch.autograd.gradcheck(solved, (X[:3].clone().requires_grad_(), right.requires_grad_()))
