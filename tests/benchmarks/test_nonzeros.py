"""Nonzeros are those of the theory, at any size, and none of them is zero by structure."""

import pytest
import torch
from benchmarks.nonzeros import PROBLEMS, main, ours
from torch.func import grad

from torchjac.testing import loop_jacobian

NAMED = [pytest.param(problem, id=f"{problem.name}-{problem.order}") for problem in PROBLEMS]


@pytest.mark.parametrize("n", [16, 144, 250_000])
@pytest.mark.parametrize("problem", NAMED)
def test_theory(problem, n) -> None:
    """As many as the theory has, each with few numbers stored."""
    J = ours(problem, n)
    assert J.nnz == problem.theory(n)
    assert J.stored <= 3 * J.nnz


@pytest.mark.parametrize("problem", NAMED)
def test_pattern(problem) -> None:
    """Each stands where the row-by-row Jacobian is not zero."""
    f = lambda x: problem.function(torch, x)
    expected = loop_jacobian(f if problem.order == 1 else grad(f), torch.linspace(0.1, 1, 16))
    found = ours(problem, 16).pattern().to_dense()
    assert torch.equal(found, expected.reshape(found.shape) != 0)


def test_table(capsys) -> None:
    """The table agrees with the theory, with asdex or without it."""
    assert main(["--n", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(PROBLEMS) + 2
