"""Pivots for rows by the pattern alone."""

import numpy
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from torchjac import jacobian
from torchjac._answers.solvers.matching import matched


def pattern(size, count, seed, perfect):
    """Places of nonzeros at random, among them those of a permutation if there is to be a pivot for each row."""
    random = numpy.random.default_rng(seed)
    row, column = random.integers(0, max(size, 1), (2, count if size else 0))
    if perfect:
        row, column = numpy.append(row, numpy.arange(size)), numpy.append(column, random.permutation(size))
    return csr_array((numpy.ones(len(row)), (row, column)), (size, size))


@pytest.mark.parametrize("perfect", [False, True])
@pytest.mark.parametrize(
    "size, count", [(0, 0), (1, 0), (1, 1), (2, 2), (5, 9), (40, 60), (40, 90), (200, 420)]
)
def test_matched(size, count, perfect) -> None:
    """There are as many pivots as there can be, each a nonzero, and no two in one column."""
    for seed in range(20):
        matrix = pattern(size, count, seed, perfect)
        full, column = matrix.toarray(), matched(matrix.indptr, matrix.indices)
        row = numpy.flatnonzero(column >= 0)
        column = column[row]
        assert len(set(column)) == len(column)
        assert (full[row, column] > 0).all()
        expected = maximum_bipartite_matching(matrix, perm_type="column") >= 0 if size else row
        assert len(row) == numpy.count_nonzero(expected)
        assert not perfect or len(row) == size


@pytest.mark.parametrize("solver, preconditioner", [(None, None), ("superlu", None), ("gmres", "ilu")])
def test_no_pivot_by_the_pattern(solver, preconditioner, monkeypatch) -> None:
    """A matrix whose pattern leaves a row without a pivot never reaches SuperLU, which reads foreign memory then."""
    for name in ("splu", "spilu"):
        monkeypatch.setattr(f"scipy.sparse.linalg.{name}", lambda *_, **__: pytest.fail("was called"))
    column = torch.arange(300).mul(7).fmod(100)  # each column has three rows, of which two have nothing else
    jac = jacobian(lambda x: x.exp()[column] + torch.cat([x[:200] * 0.5, x.new_zeros(100)]).flip(0))(
        torch.ones(300, dtype=torch.float64)
    )
    for matrix in (jac, jac.mT):
        with pytest.raises(torch.linalg.LinAlgError, match=r"singular \(row|singular \(column"):
            matrix.solve(torch.ones(300, dtype=torch.float64), solver, preconditioner)
    assert jac.slogdet().sign == 0
