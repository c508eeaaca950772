"""Least squares: tall and wide, dense, block-diagonal and sparse."""

import pytest
import torch

from torchjac import jacobian

FULL = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PAIRS = torch.randint(0, 70, (2, 200), generator=torch.Generator().manual_seed(1))

#: Functions with Jacobians of full rank, more outputs than inputs.
TALL = {
    "dense": (lambda x: FULL @ x.sin(), (4,)),
    "block-diagonal": (lambda x: x.sin() @ FULL.T, (5, 4)),
    "chain": (lambda x: torch.cat([x[1:] * x[:-1], x.sin(), x[:3] ** 2]), (80,)),
    "tables": (lambda x: torch.cat([x[PAIRS[0]] * x[PAIRS[1]], x]), (70,)),
    "one column": (lambda x: x * torch.arange(1.0, 4).double(), (1,)),
}


def problem(name):
    """The Jacobian of a function and its matrix."""
    f, shape = TALL[name]
    jac = jacobian(f)(
        torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5
    )
    return jac, jac.to_dense().reshape(torch.Size(jac.out_shape).numel(), -1)


@pytest.mark.parametrize("name", TALL)
def test_lstsq(name) -> None:
    """The solution of the dense problem, of the transpose too, which has many; for several right sides."""
    for transpose in (False, True):
        jac, dense = problem(name)
        jac, dense = (jac.mT, dense.T) if transpose else (jac, dense)
        right = torch.randn(*jac.out_shape, 2, dtype=torch.float64)
        expected = torch.linalg.lstsq(dense, right.reshape(-1, 2), driver="gelsd").solution
        torch.testing.assert_close(jac.lstsq(right), expected.reshape(*jac.in_shape, 2))
        torch.testing.assert_close(jac.lstsq(right[..., 0]), expected[:, 0].reshape(jac.in_shape))


@pytest.mark.parametrize("name", ["chain", "dense", "block-diagonal"])
def test_differentiable(name) -> None:
    """Gradients reach the point and the right side."""
    f, shape = TALL[name]
    x = torch.rand(shape, dtype=torch.float64) + 0.5
    right = torch.randn(problem(name)[0].out_shape, dtype=torch.float64)
    some = torch.arange(x.numel()).view(shape) < 3
    solved = lambda part, right: jacobian(f)(x.masked_scatter(some, part)).lstsq(right)
    assert torch.autograd.gradcheck(
        solved, (x.flatten()[:3].clone().requires_grad_(), right.requires_grad_())
    )


def test_condition_is_not_squared() -> None:
    """A chain whose condition is a million is solved to ten digits, where JᵀJ would leave four."""
    scale = torch.logspace(0, -6, 100, dtype=torch.float64)
    jac = jacobian(lambda x: torch.cat([scale * x, x[1:] * 0.1 * scale[1:]]))(
        torch.zeros(100, dtype=torch.float64)
    )
    assert jac.solved_as == "sparse"
    truth = torch.randn(100, dtype=torch.float64)
    torch.testing.assert_close(jac.lstsq(jac @ truth), truth, rtol=1e-9, atol=1e-9)


def test_errors() -> None:
    """A right side that does not fit is refused; a sparse Jacobian without full rank is singular."""
    jac = jacobian(lambda x: torch.cat([x[1:] - x[:-1], x[2:] - x[:-2]]))(
        torch.zeros(90, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="lstsq: b must have shape"):
        jac.lstsq(torch.zeros(3))
    empty = jacobian(lambda x: torch.cat([x[1:], x[1:]]))(torch.zeros(90, dtype=torch.float64))
    with pytest.raises(torch.linalg.LinAlgError, match=r"not full rank \(column 0 is zero\)"):
        empty.lstsq(torch.ones(178, dtype=torch.float64))
    wide = jacobian(lambda x: x[:-1] * x[1:] * (torch.arange(89) != 7))(torch.ones(90, dtype=torch.float64))
    with pytest.raises(torch.linalg.LinAlgError, match=r"not full rank \(row 7 is zero\)"):
        wide.lstsq(torch.ones(89, dtype=torch.float64))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("batch", [None, 3])
def test_dense_without_full_rank(batch, wide) -> None:
    """A column of a dense matrix, or of one of a batch, that others make up is named; NaN is not taken for one."""
    full = FULL.clone()
    full[:, 2] = full[:, :2].sum(1)
    rest = () if batch is None else (batch,)
    scale = torch.ones(*rest, 1, dtype=torch.float64)
    weights = full if batch is None else torch.stack([FULL, full, FULL])
    jac = jacobian(lambda x: (weights @ (scale * x)[..., None])[..., 0])(torch.ones(*rest, 4).double())
    jac = jac.mT if wide else jac
    name = f"{'row' if wide else 'column'} 2{'' if batch is None else ' of block 1'} depends"
    with pytest.raises(torch.linalg.LinAlgError, match=name):
        jac.lstsq(torch.ones(jac.out_shape, dtype=torch.float64))
    bad = (torch.nan * jac).lstsq(torch.ones(jac.out_shape, dtype=torch.float64))
    assert bad.isnan().all()


@pytest.mark.parametrize(
    "shape, rows, columns", [((0,), 0, None), ((4,), 0, None), ((0,), 3, None), ((4,), 6, 0)]
)
def test_nothing(shape, rows, columns) -> None:
    """No rows, no columns or no right sides give zeros of the input's shape."""
    jac = jacobian(lambda x: torch.cat([x, x.new_zeros(6)])[:rows] * 2)(torch.zeros(shape).double())
    tail = () if columns is None else (columns,)
    assert torch.equal(jac.lstsq(torch.ones(rows, *tail).double()), torch.zeros(*shape, *tail).double())
