"""Scans: only entries up to each position are named, whatever stands above and below."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases
from tests.allocations import Allocations

import torchjac
from torchjac import jacobian, jacrev
from torchjac.testing import check_jacobian, loop_jacobian

s = Sampler()


def scan(node, op, *args, **claims):
    """A case of a node that is called on seeds."""
    return case(node, op, *args, note="independent", **claims)


CASES = [
    scan("CumsumBackward0", lambda x: x.cumsum(1), s(2, 3), stored=[18]),
    scan("CumsumBackward0", lambda x: x.cumsum(0), s(), stored=[1]),
    scan("CumsumBackward0", lambda x: x.cumsum(0), s(1), stored=[1]),
    scan("CumsumBackward0", lambda x: x.cumsum(0), s(0, 3)),
    scan("CumprodBackward0", lambda x: x.cumprod(-1), s(2, 3), stored=[18]),
    case("LogcumsumexpBackward0", lambda x: x.logcumsumexp(0), s(3, 2), stored=[18]),
    case("LogcumsumexpBackward0", lambda x: x.logcumsumexp(-1), s(0, 3)),
    case("LogcumsumexpBackward0", lambda x: x.logcumsumexp(0), s(), stored=[0]),
]


@over_cases(CASES)
def test_scan(one: Case) -> None:
    """Value, structure and numbers: a row has n of them, of which only those up to its position are entries."""
    (J,) = check(one)
    assert J.nnz == int((J.to_dense() != 0).sum())


@pytest.mark.parametrize("op", [torch.cumsum, torch.cumprod, torch.logcumsumexp])
def test_triangle(op) -> None:
    """A hundred numbers: 5,050 entries; a batch of three has three times as many. The same by layout."""
    x = s.positive(3, 100)
    for f, v, count in ((lambda x: op(x, 0), x[0], 5050), (lambda x: op(x, 1), x, 3 * 5050)):
        for mode in ("reverse", "forward"):
            J = jacobian(f, mode=mode)(v)
            assert J.nnz == J.to_sparse()._nnz() == count
        sparse = jacrev(f, layout=torch.sparse_csr)(v)
        torch.testing.assert_close(sparse.to_dense(), J.to_dense().reshape(sparse.shape))


#: Functions of ten numbers with scans, and how many entries they have
PROGRAMS = {
    "between pointwise ops": (lambda x: x.sin().cumsum(0).cos(), 55),
    "twice": (lambda x: x.cumsum(0).sin().cumprod(0), 55),
    "backward": (lambda x: x.flip(0).cumsum(0).flip(0), 55),
    "a part": (lambda x: x[2:].cumsum(0)[1:], 35),
    "every other": (lambda x: x.cumsum(0)[::2], 25),
    "exclusive": (lambda x: torch.cat([x.new_zeros(1), x[:-1].cumsum(0)]), 45),
    "beside what it reads": (lambda x: x.cumsum(0) + x, 55),
    "two": (lambda x: x.cumsum(0) + x.cumprod(0), 55),
    "two of which one runs backward": (lambda x: x.cumsum(0) + x.flip(0).cumsum(0).flip(0), 100),
    "into one": (lambda x: x.cumsum(0).sum(), 10),
    "in another shape": (lambda x: x.view(2, 5).t().cumsum(0).t(), 30),
    "along both dims": (lambda x: x.view(2, 5).cumsum(0).cumsum(1), 45),
    "over rows": (lambda x: x.view(5, 2).flatten().cumsum(0).view(2, 5), 55),
    "a triangle of products": (lambda x: x[:5].outer(x[:5]).tril(), 25),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    """The domain goes through what the scan meets, in either order, and holds no more than the loop has."""
    f, count = PROGRAMS[name]
    x = s.positive(10)
    check_jacobian(f, x)
    assert int((loop_jacobian(f, x) != 0).sum()) == count
    for mode in ("reverse", "forward"):
        J = jacobian(f, mode=mode)(x)
        assert J.nnz == J.to_sparse()._nnz() == count


@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_triangles_of_a_matrix(offset: int) -> None:
    """Of `tril` and `triu` what they leave out is no entry; one shape with another diagonal is told apart."""
    x = s(3, 4)
    for op in (torch.tril, torch.triu):
        for _ in range(3):  # then a walk is replayed
            J = jacobian(lambda x, op=op: op(x, offset))(x)
            assert J.nnz == int((op(torch.ones(3, 4), offset) != 0).sum())


def test_compiled() -> None:
    """The program gives the entries that the call gives."""
    compiled = torchjac.compile(jacobian(lambda x: x.cumsum(0).sin()), backend="eager")
    for _ in range(2):
        x = s(10)
        J = compiled(x)
        assert J.nnz == J.to_sparse()._nnz() == 55
        torch.testing.assert_close(J.to_dense(), jacrev(lambda x: x.cumsum(0).sin())(x))


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_zeros_of_the_triangle(mode: str) -> None:
    """What is infinite or NaN above meets no zero of the table, row by row or in a product."""
    x = torch.tensor([0.0, 1, 2], dtype=torch.float64)
    f = lambda x: x.logcumsumexp(0).sqrt()
    torch.testing.assert_close(jacobian(f, mode=mode)(x).to_dense(), loop_jacobian(f, x))
    table = jacobian(lambda x: x.logcumsumexp(0))(x).to_dense()
    for bad in (torch.inf, -torch.inf, torch.nan):
        weight = torch.tensor([[1, bad, 0], [2, 3, 4]], dtype=torch.float64)
        found = jacobian(lambda x, weight=weight: weight @ x.logcumsumexp(0), mode=mode)(x).to_dense()
        expected = weight.nan_to_num(0, 0, 0) @ table
        expected[0, :2] += bad
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_infinite_slopes_above_a_triangle() -> None:
    """What lies beyond the diagonal drops an infinite slope; elsewhere it stays, and of both signs it is NaN.

    With y = log Σ exp x and 1/y infinite at y = 0: only entries up to that position see the slope of it.
    """
    x = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64)
    weight = torch.tensor([[1.0, 3.0, 2.0], [-2.0, 0.0, 4.0]], dtype=torch.float64)
    J = jacobian(lambda x: weight @ (1 / x.logcumsumexp(0)))(x).to_dense()
    y = x.logcumsumexp(0)
    later = weight[:, 2] * -y[2].pow(-2) * (x[2] - y[2]).exp()
    torch.testing.assert_close(J[:, 2], later)
    torch.testing.assert_close(
        J[:, 1],
        torch.stack(
            [
                row[1] * -y[1].pow(-2) * (x[1] - y[1]).exp() + row[2] * -y[2].pow(-2) * (x[1] - y[2]).exp()
                for row in weight
            ]
        ),
    )
    assert J[:, 0].tolist() == [-torch.inf, torch.inf]


def test_a_product_with_a_triangle_is_summed_at_once() -> None:
    """Weights times the triangle of a running logsumexp: a product of matrices, no number for each three positions."""
    n = 40
    x, weight = s(n), s(n, n)
    f = lambda x: weight @ x.logcumsumexp(0)
    with Allocations(n**3 // 2) as seen:
        J = jacobian(f)(x).to_dense()
    assert not seen.storages
    torch.testing.assert_close(J, loop_jacobian(f, x))
