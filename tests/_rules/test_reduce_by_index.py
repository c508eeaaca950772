"""Reductions by index: each source entry counts towards one output entry, and no other is stored."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import hessian, jacobian, jacrev, vmap
from torchjac.testing import check_rule, finite_differences

s = Sampler()
i23 = torch.tensor([[0, 2, 0], [1, 1, 2]])
repeated = torch.tensor([2, 0, 2])
SCATTER, INDEX = "ScatterReduceBackward0", "IndexReduceBackward0"

pytestmark = pytest.mark.filterwarnings("ignore:index_reduce")


def scattered(how, dim=1, index=i23, **keywords):
    """A reduction of the second argument into the first."""
    return lambda x, y: x.scatter_reduce(dim, index, y, how, **keywords)


def indexed(how, dim=0, index=repeated, **keywords):
    """The same along a dim."""
    return lambda x, y: x.index_reduce(dim, index, y, how, **keywords)


CASES = [
    case(SCATTER, scattered("sum"), s(2, 3), s(2, 3), stored=[0, 6]),
    case(SCATTER, scattered("sum", include_self=False), s(2, 3), s(2, 3), stored=[6, 6]),
    *(
        case(SCATTER, scattered(how, include_self=both), s(2, 3), s.spread(2, 3), stored=[6, 12])
        for how in ("mean", "prod", "amax", "amin")
        for both in (True, False)
    ),
    case(SCATTER, scattered("prod", 0, i23[:, :1]), s(4, 2), s(2, 1), stored=[8, 4]),
    case(SCATTER, scattered("amax", 0, torch.tensor(1)), s(3), s(), stored=[3, 2]),
    case(SCATTER, scattered("mean", 0, torch.tensor(0)), s(), s(), stored=[1, 1]),
    case(SCATTER, scattered("amax", 0, repeated[:0], include_self=False), s(3), s(0), stored=[3, 0]),
    case(SCATTER, scattered("mean", 0, repeated[:0]), s(0), s(0)),
    *(
        case(INDEX, indexed(how, include_self=both), s(4, 2), s.spread(3, 2), stored=[8, 9])
        for how in ("mean", "prod", "amax", "amin")
        for both in (True, False)
    ),
    case(INDEX, indexed("prod", -1), s(2, 3), s(2, 3), stored=[6, 9]),
    case(INDEX, indexed("mean", 0, repeated[:0]), s(4, 2), s(0, 2)),
    case(INDEX, indexed("amin", 0, repeated[1:2]), s(), s(), stored=[1, 1]),
]


@over_cases(CASES)
def test_reduce_by_index(one: Case) -> None:
    """Value, structure and numbers: one for each entry of self and of the source, and the index."""
    check(one)


def test_at_scale() -> None:
    """100,000 groups of three have one entry for each source entry, not ten thousand million."""
    groups = torch.arange(300_000) // 3
    x = torch.rand(300_000, dtype=torch.float64)
    for how in ("sum", "mean", "prod", "amax", "amin"):
        J = jacobian(
            lambda x, how=how: x.new_ones(100_000).scatter_reduce(0, groups, x, how, include_self=False)
        )(x)
        assert (J.nnz, J.stored <= 600_000) == (300_000, True)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("source", [[1, 2, 3, 4], [0, 2, 3, 4], [0, 0, 3, 4], [0, 0, 0, 1], [1, 0, 0, 0]])
def test_product_at_zeros(both: bool, source: list[int]) -> None:
    """First and second derivatives of a product are those of the polynomial, whatever entries are zero."""
    into = torch.tensor([0, 0, 0, 1])

    def f(z):
        return z[:3].scatter_reduce(0, into, z[3:], "prod", include_self=both)

    z = torch.tensor([0, 2, 3, *source], dtype=torch.float64)
    torch.testing.assert_close(jacrev(f)(z), finite_differences(f, z))
    first = lambda z: jacobian(f)(z).to_dense()
    expected = finite_differences(first, z)
    torch.testing.assert_close(jacobian(first)(z).to_dense(), expected)
    torch.testing.assert_close(jacrev(jacrev(f))(z), expected)
    torch.testing.assert_close(hessian(f)(z), expected)


def test_self_left_out_is_no_extremum() -> None:
    """A self equal to the extremum that leaves it out shares nothing; PyTorch (2.13) halves the derivative."""
    x, y = torch.full((1,), 2.0, dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    f = lambda y: x.scatter_reduce(0, torch.zeros(2, dtype=torch.int64), y, "amax", include_self=False)
    for found in (jacrev(f)(y), jacobian(f)(y).to_dense()):
        assert found.tolist() == [[1, 0]]


def test_inside_vmap() -> None:
    """Index and source of each sample are its own."""
    x, y = s(5, 2, 3), s.spread(5, 2, 3)
    index = torch.stack([i23.roll(k, 1) for k in range(5)])
    f = lambda x, y, index: x.scatter_reduce(1, index, y, "amax")
    found = vmap(jacrev(f, (0, 1)))(x, y, index)
    for k in range(5):
        for argnum in (0, 1):
            (expected,) = check_rule(
                lambda z, k=k, a=argnum: f(*((z, y[k]) if a == 0 else (x[k], z)), index[k]), (x, y)[argnum][k]
            )
            torch.testing.assert_close(found[argnum][k], expected.to_dense())


@pytest.mark.parametrize(
    ("how", "own", "other"),
    [("sum", 1, 1), ("mean", 0.5, 0.5), ("prod", 5, 3), ("amax", 0, 1), ("amin", 1, 0)],
)
@pytest.mark.parametrize("size", [1, 2])
def test_a_number_as_index(how: str, own: float, other: float, size: int) -> None:
    """An index without dims names one entry, and of the source the first; autograd fails at a mean."""
    x, y = torch.tensor([2.0, 3, 4], dtype=torch.float64), torch.tensor([5.0, 7], dtype=torch.float64)[:size]
    f = lambda x, y: x.scatter_reduce(0, torch.tensor(1), y, how)
    by_x, by_y = jacobian(f, (0, 1))(x, y)
    assert torch.equal(by_x.to_dense(), torch.diag(torch.tensor([1.0, own, 1], dtype=torch.float64)))
    expected = torch.zeros(3, size, dtype=torch.float64)
    expected[1, 0] = other
    assert torch.equal(by_y.to_dense(), expected)
