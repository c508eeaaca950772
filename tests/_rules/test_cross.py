"""The cross product: two entries of each factor for each entry, the third is zero by law."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import hessian, jacobian, jacrev
from torchjac.testing import check_jacobian, finite_differences

s = Sampler()
cross = torch.linalg.cross

# Above the diagonal, below it, and the corners: two numbers each for each vector of the other factor.
CASES = [
    case("LinalgCrossBackward0", cross, s(2, 3), s(2, 3), stored=[12, 12], blocks=[3, 3]),
    case("LinalgCrossBackward0", lambda x, y: cross(x, y, dim=0), s(3, 2), s(3, 1), stored=[6, 12]),
    case("LinalgCrossBackward0", lambda x, y: cross(x, y, dim=1), s(1, 3, 2), s(4, 3, 2), stored=[48, 12]),
    case("LinalgCrossBackward0", cross, s(3), s(3), stored=[6, 6]),
    case("LinalgCrossBackward0", cross, s(0, 3), s(0, 3)),
]


@over_cases(CASES)
def test_cross(one: Case) -> None:
    """Value, structure and numbers; no call is made."""
    check(one)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_entries(mode: str) -> None:
    """A thousand pairs: six entries for each factor of a pair."""
    x, y = s(1000, 3), s(1000, 3)
    for argnum in (0, 1):
        assert jacobian(cross, argnum, mode=mode)(x, y).nnz == 6000


def test_second_order_and_complex() -> None:
    """Second derivatives, and complex vectors, of which the real way is taken by calls."""
    f = lambda x: cross(x, x.sin()).pow(3).sum()
    x = s(2, 3)
    torch.testing.assert_close(hessian(f)(x), finite_differences(jacrev(f), x), rtol=1e-5, atol=1e-6)
    check_jacobian(lambda x: cross(torch.complex(x, x.sin()), torch.complex(x.cos(), x)).imag, x)
