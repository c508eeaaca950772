"""Reductions: a row of ones or of factors for each entry of the output."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian
from torchjac.testing import loop_jacobian

s = Sampler()

CASES = [
    case("SumBackward0", lambda x: x.sum(), s(2, 3), stored=[0]),
    case("SumBackward0", lambda x: x.sum(), s(), stored=[0]),
    case("SumBackward0", lambda x: x.sum(), s(0, 3)),
    case("SumBackward1", lambda x: x.sum(-1), s(2, 3), stored=[0]),
    case("SumBackward1", lambda x: x.sum((0, -1), keepdim=True), s(2, 3, 4), stored=[0]),
    case("SumBackward1", lambda x: x.sum(0), s(0, 3)),
    case("SumBackward1", lambda x: x.sum(0), s(), stored=[0]),
    case("SumBackward1", lambda x: x.sum(1), s(1, 1), stored=[0]),
    case("MeanBackward0", lambda x: x.mean(), s(2, 3), stored=[0]),
    case("MeanBackward1", lambda x: x.mean(1), s(2, 3), stored=[0]),
    case("MeanBackward1", lambda x: x.mean((-1, 0), keepdim=True), s(2, 3, 4), stored=[0]),
    case("MeanBackward1", lambda x: x.mean(0), s(1, 3), stored=[0]),
    case("ProdBackward0", lambda x: x.prod(), s(5), stored=[5]),
    case("ProdBackward0", lambda x: (x * torch.tensor([1.0, 0, 1])).prod(), s(3), stored=[3]),
    case("ProdBackward1", lambda x: x.prod(1), s(2, 3), stored=[6]),
    case("ProdBackward1", lambda x: x.prod(-2, keepdim=True), s(2, 3, 1), stored=[6]),
    case("NansumBackward0", lambda x: torch.nansum(x, 1), s(2, 3), stored=[6]),
    case("NansumBackward0", lambda x: torch.nansum(x), s(2, 3), stored=[6]),
    case("VarBackward0", lambda x: x.var(), s(5), stored=[5]),
    case("VarBackward0", lambda x: x.var(1), s(2, 3), stored=[6]),
    case("VarBackward0", lambda x: x.var((0, 2), keepdim=True, correction=0), s(2, 3, 4), stored=[24]),
    case("StdBackward0", lambda x: x.std(0), s(3, 2), stored=[6]),
    case("StdBackward0", lambda x: x.std(correction=0), s(3, 2), stored=[6]),
    case("VarMeanBackward0", lambda x: torch.mul(*torch.var_mean(x, 1)), s(2, 3), calls=2, stored=[6]),
    case(
        "VarMeanBackward0",
        lambda x: torch.var_mean(x, (0, 2), keepdim=True)[0],
        s(2, 3, 2),
        calls=2,
        stored=[12],
    ),
    case("StdMeanBackward0", lambda x: torch.mul(*torch.std_mean(x)), s(2, 3), calls=2, stored=[6]),
    case("NormBackward0", lambda x: torch.ops.aten.norm(x, 2), s(2, 3), stored=[6]),
    case("NormBackward1", lambda x: torch.ops.aten.norm(x, 3.0, [1], True), s(2, 3), stored=[6]),
    case("NormBackward1", lambda x: torch.ops.aten.norm(x, 2, [0]), s(2, 3), stored=[6]),
    case("NormBackward2", lambda x: torch.ops.aten.norm(x, 2, dtype=torch.float64), s(2, 3), stored=[6]),
    case(
        "NormBackward3",
        lambda x: torch.ops.aten.norm(x, 2, [-1], False, dtype=torch.float64),
        s(2, 3),
        stored=[6],
    ),
    case("LinalgVectorNormBackward0", lambda x: x.norm(), s(2, 3), stored=[6]),
    case("LinalgVectorNormBackward0", lambda x: torch.linalg.vector_norm(x, 0, 1), s(2, 3), blocks=[0]),
    case("LinalgVectorNormBackward0", lambda x: x.norm(dim=-1), s(2, 3), stored=[6]),
    case(
        "LinalgVectorNormBackward0",
        lambda x: torch.linalg.vector_norm(x, 3, (0, 2), True),
        s(2, 3, 2),
        stored=[12],
    ),
    case(
        "LinalgVectorNormBackward0",
        lambda x: torch.linalg.vector_norm(x, torch.inf, 1),
        s.spread(2, 3),
        stored=[6],
    ),
    case("LinalgVectorNormBackward0", lambda x: torch.linalg.vector_norm(x, 1), s(), stored=[1]),
    case("LinalgVectorNormBackward0", lambda x: torch.linalg.matrix_norm(x), s(2, 3, 4), stored=[24]),
    case("LogsumexpBackward0", lambda x: x.logsumexp(-1), s(2, 3), stored=[6]),
    case("LogsumexpBackward0", lambda x: x.logsumexp((0, 1), True), s(2, 3), stored=[6]),
    case("AmaxBackward0", lambda x: x.amax(1), s.spread(2, 3), stored=[6]),
    case("AmaxBackward0", lambda x: x.amax(), s.spread(2, 3), stored=[6]),
    case("AmaxBackward0", lambda x: x.amax(-1, keepdim=True), s.spread(2, 1), stored=[2]),
    case("AminBackward0", lambda x: x.amin((0, 1)), s.spread(2, 3, 2), stored=[12]),
    case(
        "AminmaxBackward0", lambda x: torch.mul(*torch.aminmax(x, dim=1)), s.spread(2, 3), calls=2, stored=[6]
    ),
    case("AminmaxBackward0", lambda x: torch.sub(*torch.aminmax(x)), s.spread(2, 3), calls=2, stored=[6]),
    case(
        "AminmaxBackward0",
        lambda x: torch.aminmax(x, dim=0, keepdim=True)[1],
        s.spread(2, 3),
        calls=2,
        stored=[6],
    ),
    case("MaxBackward1", lambda x: x.max(), s.spread(2, 3), stored=[6]),
    case("MinBackward1", lambda x: x.min(), s.spread(2, 3), stored=[6]),
    case("MedianBackward0", lambda x: x.median(), s.spread(5), stored=[5]),
    case("NanmedianBackward0", lambda x: x.nanmedian(), s.spread(2, 3), stored=[6]),
]


@over_cases(CASES)
def test_reduction(one: Case) -> None:
    """Each output entry is a row of factors, found by one call on ones; a sum stores nothing."""
    check(one)


NOTHING = torch.tensor([[0.0, 0, 0], [0, 2, 0]], dtype=torch.float64)
UPSTREAM = torch.tensor([torch.inf, 1], dtype=torch.float64)


@pytest.mark.parametrize("order", [0, 0.5, 1, 1.5, 2, 3, torch.inf])
@pytest.mark.parametrize("norm", [torch.norm, torch.linalg.vector_norm], ids=["norm", "vector_norm"])
def test_norm_at_zero(norm, order) -> None:
    """What arrives at a norm of zeros is multiplied with 0 or dropped, by its order, as in autograd."""
    f = lambda x: norm(x, order, 1) * UPSTREAM
    found, expected = jacobian(f)(NOTHING).to_dense(), loop_jacobian(f, NOTHING)
    torch.testing.assert_close(found[0, 0], expected[0, 0], equal_nan=True)
    assert bool(expected[0, 0].isnan().all()) == (order in (0.5, 1, 2, torch.inf))
    torch.testing.assert_close(found[1, 1], expected[1, 1], equal_nan=True)


@pytest.mark.parametrize(
    "f", [torch.std, lambda x: torch.std_mean(x)[0], torch.max, torch.min, torch.median, torch.nanmedian]
)
def test_selecting_reductions(f) -> None:
    """An infinite cotangent reaches the entries chosen, none where a deviation is 0, and makes no NaN."""
    x = torch.tensor([3.0, 3, 3] if "std" in str(f) or f.__name__ == "<lambda>" else [1.0, 3, 2])
    g = lambda x: f(x) * torch.inf
    assert torch.equal(jacobian(g)(x.double()).to_dense(), loop_jacobian(g, x.double()))
