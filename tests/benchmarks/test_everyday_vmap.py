"""The problems of the benchmark inside vmap: enough of them, and ours agrees with torch.func's on each."""

import pytest
import torch
from benchmarks.everyday_vmap import calls, check, problems
from tests.fixtures import double as double


def test_there_are_enough():
    """At least thirty functions, by input and by parameters, Hessians among them."""
    found = problems()
    assert len(found) >= 30
    assert len([name for name in found if "by parameters" in name]) >= 6
    assert len([name for name in found if "Hessian" in name]) >= 5


@pytest.mark.parametrize("name", problems())
def test_ours_agrees(name):
    """Whatever is timed is right, at the first call and where a program is known."""
    problem = problems()[name]
    x = torch.rand(3, *problem.shape) + 0.1
    for _ in range(3):
        check(problem, x, calls(problem, x))
