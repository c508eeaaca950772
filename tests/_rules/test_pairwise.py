"""Ops on pairs of rows: a row of factors for each of the two rows."""

import math

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian, jacrev
from torchjac.testing import finite_differences, loop_jacobian

s = Sampler()

CASES = [
    *(
        case("PdistBackward0", lambda x, p=p: torch.pdist(x, p), s(4, 3), stored=[48 if p else 0])
        for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
    ),
    case("PdistBackward0", torch.pdist, s(2, 1), stored=[2]),
    case("PdistBackward0", torch.pdist, s(1, 3)),
    case("PdistBackward0", torch.pdist, s(0, 3)),
    case("PdistBackward0", torch.pdist, s(3, 0)),
    *(
        case("CdistBackward0", lambda x, y, p=p: torch.cdist(x, y, p), s(4, 3), s(5, 3), stored=[60, 60])
        for p in (0.5, 1.0, 1.5, 2.0, 3.0, math.inf)
    ),
    case("CdistBackward0", lambda x, y: torch.cdist(x, y, 0.0), s(4, 3), s(5, 3), stored=[0, 0]),
    case("CdistBackward0", lambda x, y: torch.cdist(x, y, 3), s(2, 4, 3), s(2, 5, 3), stored=[120, 120]),
    case("CdistBackward0", lambda x, y: torch.cdist(x, y, 1.5), s(1, 4, 3), s(2, 2, 3), stored=[48, 48]),
    case("CdistBackward0", lambda x, y: torch.cdist(x, y, 1.5), s(4, 3), s(2, 2, 3), stored=[48, 48]),
    case("CdistBackward0", torch.cdist, s(1, 1), s(1, 1), stored=[1, 1]),
    case("CdistBackward0", torch.cdist, s(2, 0), s(3, 0)),
    case("EuclideanDistBackward0", torch._euclidean_dist, s(4, 3), s(5, 3), stored=[60, 60]),
    case("EuclideanDistBackward0", torch._euclidean_dist, s(2, 4, 3), s(2, 5, 3), stored=[120, 120]),
    case("EuclideanDistBackward0", torch.cdist, s(30, 2), s(2, 3, 2), stored=[360, 360]),
]


@over_cases(CASES)
def test_pairs(one: Case) -> None:
    """Of n(n−1)/2 pairs each has two rows of factors, and names two rows."""
    check(one)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_equal_rows(p) -> None:
    """Rows that are equal, wholly or in part, have the derivative that PyTorch gives them."""
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 0, 4], [0, 2, 3]]).double()
    f = lambda x: torch.pdist(x, p)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_equal_rows_of_two(p, mode) -> None:
    """The same for a tensor with itself, by either kernel; infinite cotangents where rows are equal are dropped."""
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [1, 0, 4], [0, 2, 3]]).double()
    f = lambda x: torch.cdist(x, x + 0, p, compute_mode=mode)
    torch.testing.assert_close(jacobian(f)(x).to_dense(), loop_jacobian(f, x))
    g = lambda x: torch.cdist(x, x + 0, p, compute_mode=mode).sqrt()
    if p not in (0.5, 1.0, math.inf):
        torch.testing.assert_close(jacobian(g)(x).to_dense(), loop_jacobian(g, x), equal_nan=True)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0])
def test_second_derivative(p) -> None:
    """Second derivatives, which PyTorch does not have, are those of finite differences."""
    x, f = s(3, 2), lambda x: jacobian(lambda x: torch.pdist(x, p))(x).to_dense()
    torch.testing.assert_close(jacrev(f)(x), finite_differences(f, x), rtol=1e-6, atol=1e-6)
