"""Sums and multiples of Jacobians: what the dense tensors give, kept as blocks."""

import numpy
import pytest
import torch
from tests._answers.cases import forms, program_jacobians, random_jacobians

from torchjac import jacobian, jacrev


def every_case():
    """Jacobians of random blocks, of random blocks with equal ends, and of programs."""
    yield from random_jacobians(60)
    yield from random_jacobians(60, square=True)
    yield from ((jac, dense) for _, jac, dense in program_jacobians())


def test_multiples() -> None:
    """By a number from either side, by a 0-dim tensor, divided, with the other sign."""
    for jac, dense in every_case():
        factor = torch.tensor(0.5, dtype=torch.float32)
        for found, expected in (
            (jac * 3, dense * 3),
            (2.5 * jac, dense * 2.5),
            (factor * jac, dense * 0.5),
            (jac * factor, dense * 0.5),
            (jac / 4, dense / 4),
            (-jac, -dense),
        ):
            assert found.dtype == jac.dtype
            assert found.stored <= jac.stored + len(jac.blocks)
            torch.testing.assert_close(found.to_dense(), expected)


def test_sums() -> None:
    """The sum and difference of two of one shape, one perhaps the same."""
    by_shape = {}
    for jac, dense in every_case():
        other, other_dense = by_shape.setdefault((jac.out_shape, jac.in_shape, jac.dtype), (jac, dense))
        torch.testing.assert_close((jac + other).to_dense(), dense + other_dense)
        torch.testing.assert_close((jac - other * 2).to_dense(), dense - 2 * other_dense)
        torch.testing.assert_close(sum([jac, other, jac]).to_dense(), 2 * dense + other_dense)
    assert len(by_shape) > 20


def test_add_diagonal() -> None:
    """A number, a 0-dim tensor, or a number for each entry."""
    count = 0
    for jac, dense in every_case():
        if jac.out_shape != jac.in_shape:
            with pytest.raises(ValueError, match="same shape"):
                jac.add_diagonal(1)
            continue
        count += 1
        eye = torch.eye(torch.Size(jac.in_shape).numel(), dtype=jac.dtype).reshape(jac.shape)
        values = torch.randn(jac.in_shape, dtype=jac.dtype)
        torch.testing.assert_close(jac.add_diagonal(3).to_dense(), dense + 3 * eye)
        torch.testing.assert_close(jac.add_diagonal(torch.tensor(2)).to_dense(), dense + 2 * eye)
        torch.testing.assert_close(jac.add_diagonal(values).to_dense(), dense + eye * values)
    assert count > 40


def test_structure_is_kept() -> None:
    """A damped step of a chain is tridiagonal, an implicit one of a batch block-diagonal, a multiple a product."""
    x = torch.rand(1000, dtype=torch.float64)
    damped = jacobian(lambda x: x[1:] - x[:-1])(x).gram().add_diagonal(1e-3)
    assert (damped.nnz, damped.solved_as) == (2998, "sparse")
    assert damped.stored < 10
    right = torch.randn(1000, dtype=torch.float64)
    torch.testing.assert_close(damped @ damped.solve(right), right)
    step = (-0.1 * jacobian(lambda x: (x @ torch.ones(4, 4).double()).sin())(x.view(250, 4))).add_diagonal(1)
    assert (step.kind, step.stored) == ("block-diagonal", 250 * 4 * 4)
    narrow, wide = torch.rand(5, 2000), torch.rand(2000, 5)
    through = jacobian(lambda x: wide @ torch.tanh(narrow @ x))(torch.zeros(2000))
    assert (2 * through).stored == through.stored
    assert len((2 * through).factors) == 2
    same = jacobian(torch.sin)(x) + jacobian(torch.cos)(x)
    assert (same.stored, len(same.blocks)) == (1000, 1)


def test_derivatives() -> None:
    """Sums and multiples are differentiated through both, and through the number."""
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def total(x, c):
        J = jacobian(lambda x: x[1:] * x[:-1])(x)
        K = (c * J + J / c - jacobian(lambda x: x[1:].sin())(x)).gram().add_diagonal(x)
        return K.to_dense().square().sum()

    assert torch.autograd.gradcheck(total, (x, c))


def test_the_caller_may_write_into_it() -> None:
    """What is added is not the caller's tensor."""
    x = torch.rand(4)
    values = torch.rand(4)
    J = (0 * jacobian(torch.sin)(x)).add_diagonal(values)
    before = J.to_dense()
    values += 1
    torch.testing.assert_close(J.to_dense(), before)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda J: J + 1, TypeError, "K must be a Jacobian, got int"),
        (lambda J: 1 + J, TypeError, "K must be a Jacobian, got int"),
        (lambda J: 1 - J, TypeError, r"K must be a Jacobian, got int; .* 1 - J is \(-J\).add_diagonal\(1\)"),
        (lambda J: J - torch.zeros(3, 4), TypeError, "K must be a Jacobian, got Tensor"),
        (lambda J: J + J.mT, ValueError, r"got \(3,\) by \(4,\) .* and \(4,\) by \(3,\)"),
        (lambda J: J + jacobian(lambda x: x[1:])(torch.zeros(4, dtype=torch.float64)), ValueError, "float64"),
        (lambda J: J * torch.ones(4), ValueError, r"shape \(3,\), got \(4,\)"),
        (lambda J: J * True, TypeError, "bool"),
        (lambda J: J * 1j, TypeError, "complex"),
        (lambda J: J / "2", TypeError, "str"),
        (lambda J: J * torch.tensor(1j), ValueError, "complex64"),
        (lambda J: J.gram().add_diagonal([1.0]), TypeError, "got list; use torch.tensor"),
        (lambda J: J.gram().add_diagonal(numpy.ones(4)), TypeError, "got ndarray; use torch.from_numpy"),
        (lambda J: J.gram().add_diagonal(torch.ones(3)), ValueError, r"\(4,\), got \(3,\)"),
        (lambda J: numpy.asarray(J), TypeError, "to_dense"),
    ],
)
def test_errors(call, error, match) -> None:
    """What does not fit is refused, with what was given and what is needed."""
    J = jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(4))
    with pytest.raises(error, match=match):
        call(J)


def test_division_by_zero() -> None:
    """Gives what tensors give."""
    J = jacobian(torch.sin)(torch.zeros(2))
    assert (J / torch.tensor(0.0)).diagonal().isinf().all()
    assert (J / 0).diagonal().isinf().all()
    assert jacrev(torch.sin)(torch.zeros(2)).diagonal().eq(1).all()


def test_rows_and_columns_are_scaled() -> None:
    """J * r and c * J for tensors of the output's and the input's shape; a number scales all."""
    for jac, dense in forms():
        r, c = (torch.rand(shape, dtype=torch.float64) for shape in (jac.out_shape, jac.in_shape))
        rows = r.reshape(r.shape + (1,) * c.dim())
        torch.testing.assert_close((jac * r).to_dense(), dense * rows)
        torch.testing.assert_close((c * jac).to_dense(), dense * c)
        torch.testing.assert_close((jac / (1 + r)).to_dense(), dense / (1 + rows))
        assert (jac * r).stored <= max(jac.stored + r.numel(), dense.numel())


def test_scaling_errors() -> None:
    """What does not fit is refused with what it would scale."""
    jac = jacobian(torch.sin)(torch.zeros(3))[1:]
    with pytest.raises(ValueError, match=r"J \* r: r, which scales rows, must have shape \(2,\)"):
        jac * torch.ones(3)
    with pytest.raises(ValueError, match=r"c \* J: c, which scales columns, must have shape \(3,\)"):
        torch.ones(2) * jac
