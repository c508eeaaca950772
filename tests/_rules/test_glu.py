"""Gated linear units: two diagonals, and three of the backward."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian, jacrev, vmap
from torchjac.testing import finite_differences

s = Sampler()
F = torch.nn.functional
backward = torch.ops.aten.glu_backward

CASES = [
    case("GluBackward0", lambda x: F.glu(x, 1), s(2, 6), stored=[12], blocks=[2]),
    case("GluBackward0", lambda x: F.glu(x, 0), s(4, 3), stored=[12], blocks=[2]),
    case("GluBackward0", lambda x: F.glu(x, -2), s(3, 2, 5), stored=[30], blocks=[2]),
    case("GluBackward0", F.glu, s(2), stored=[2]),
    case("GluBackward0", F.glu, s(0, 6)),
    case(
        "GluBackwardBackward0", lambda g, x: backward(g, x, 1), s(2, 3), s(2, 6),
        stored=[12, 18], blocks=[2, 3], calls=2,
    ),
    case("GluBackwardBackward0", lambda x: backward(torch.ones(3, 1).double(), x, 1), s(3, 2), stored=[9], calls=2),
    case("GluBackwardBackward0", lambda g: backward(g, torch.ones(4, 3).double(), 0), s(2, 3), stored=[12], calls=2),
]  # fmt: skip


@over_cases(CASES)
def test_glu(one: Case) -> None:
    """Value, structure and numbers."""
    check(one)


@pytest.mark.parametrize("dim", [0, 1])
def test_glu_twice(dim) -> None:
    """The Hessian of a sum of units is a matrix of two by two for each, in a batch too."""
    x = s(4, 6)
    f = lambda x: F.glu(x, dim).sin().sum()
    J = jacobian(jacrev(f))(x)
    expected = finite_differences(jacrev(f), x)
    torch.testing.assert_close(J.to_dense(), expected, rtol=1e-6, atol=1e-6)
    assert J.nnz == 48
    torch.testing.assert_close(vmap(jacrev(jacrev(f)))(x[None])[0], expected, rtol=1e-6, atol=1e-6)
