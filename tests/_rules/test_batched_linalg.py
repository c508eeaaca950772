"""Many cotangents at once through systems and factors: of every spelling of them, by one call of a solver.

What each gives for a row alone is compared in `test_batched_vjp`, for every case of every rule.
"""

import pytest
import torch
from tests.forced import force
from torch.overrides import TorchFunctionMode

from torchjac import hessian, jacrev, vmap
from torchjac._rules import batched_linalg
from torchjac.testing import finite_differences, loop_jacobian

L = torch.linalg


def spd(x):
    """A positive definite matrix for each sample."""
    return x @ x.mT + 3 * torch.eye(x.shape[-1], dtype=x.dtype)


#: Functions of a square matrix; "strided" ones are factored as they lie, others as their transposes
SYSTEMS = {
    "solve": lambda a: L.solve(spd(a) + a, a[..., :2]),
    "solve, strided": lambda a: L.solve((spd(a) + a).mT, a[..., :2]),
    "solve, a vector": lambda a: L.solve(spd(a) + a, a[..., 0]),
    "solve, a vector, strided": lambda a: L.solve((spd(a) + a).mT, a[..., 0]),
    "solve from the right": lambda a: L.solve(spd(a) + a, a[..., :2, :], left=False),
    "solve, the side alone": lambda a: L.solve(torch.ones(3, 3, dtype=a.dtype).tril(), a[..., :2]),
    "solve, a side of more dims": lambda a: L.solve(spd(a) + a, a[..., :2].unsqueeze(0)),
    "inv": lambda a: L.inv(spd(a) + a),
    "cholesky": lambda a: L.cholesky(spd(a)),
    "cholesky, upper": lambda a: L.cholesky(spd(a), upper=True),
    "cholesky_solve": lambda a: torch.cholesky_solve(a[..., :2], L.cholesky(spd(a))),
    "cholesky_solve, upper": lambda a: torch.cholesky_solve(a[..., :2], spd(a).triu(), upper=True),
    "triangular, lower": lambda a: L.solve_triangular(spd(a), a[..., :2], upper=False),
    "triangular, upper": lambda a: L.solve_triangular(spd(a), a[..., :2], upper=True),
    "triangular from the right": lambda a: L.solve_triangular(spd(a), a[..., :2, :], upper=False, left=False),
    "unitriangular": lambda a: L.solve_triangular(a, a[..., :2], upper=True, unitriangular=True),
    "unitriangular, lower": lambda a: L.solve_triangular(a, a[..., :2], upper=False, unitriangular=True),
    "det": lambda a: L.det(spd(a) + a) * a[..., 0, 0],
    "slogdet": lambda a: L.slogdet(spd(a) + a).logabsdet * a[..., 0, 0],
}


@pytest.mark.parametrize("batch", [0, 1, 4])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("way", ["structure", "rows"])
def test_systems(name, batch, way, monkeypatch):
    """Of a batch and of one sample, in rows and by structure: the loop's."""
    force(monkeypatch, way)
    f = SYSTEMS[name]
    a = torch.randn(batch, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jacrev(f)(a), loop_jacobian(f, a))
    if batch:
        torch.testing.assert_close(vmap(jacrev(f))(a), torch.stack([loop_jacobian(f, each) for each in a]))
        torch.testing.assert_close(jacrev(f)(a[0]), loop_jacobian(f, a[0]))


@pytest.mark.parametrize("name", SYSTEMS)
def test_second_derivatives(name):
    """What is recorded reaches the matrix."""
    f = lambda a: SYSTEMS[name](a).sin().sum()
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hessian(f)(a), finite_differences(jacrev(f), a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("way", ["structure", "rows"])
def test_a_graph_is_recorded(name, way, monkeypatch):
    """Of a matrix that something else asks gradients of, too: the rows, and their gradients by that.

    PyTorch's own formula of a solve is wrong on many rows where the side has more dims than the matrix.
    """
    force(monkeypatch, way)
    scale = torch.tensor([1.3, 0.8, 1.1], dtype=torch.float64, requires_grad=True)
    f = lambda a: SYSTEMS[name](a * scale)
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = a.clone().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(entry, x, create_graph=True)[0] for entry in y.reshape(-1)]
    expected = torch.stack(rows).reshape(y.shape + x.shape)
    found = jacrev(f)(a)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(value.square().sum(), scale)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes)


class Sides(TorchFunctionMode):
    """Keeps the shapes of the sides that solvers are called on."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("linalg_lu_solve", "linalg_solve_triangular", "cholesky_solve"):
            self.seen.append(tuple(args[2 if "lu" in func.__name__ else 1].shape))
        return func(*args, **(kwargs or {}))


def test_what_is_factored():
    """The factors that PyTorch saves are those of the matrix, or of its transpose."""
    a = torch.tensor([[2.0, 1.0], [0.5, 3.0]], requires_grad=True)
    node = L.solve(a, torch.ones(2)).grad_fn
    p, lower, upper = torch.lu_unpack(node._saved_LU, node._saved_pivots)
    torch.testing.assert_close(p @ lower @ upper, (a.mT if batched_linalg.transposes() else a).detach())


def test_one_call_of_a_solver():
    """All rows stand in one right-hand side for each matrix of the batch, which no row copies."""
    a, b = torch.randn(5, 3, 3), torch.randn(5, 3)
    with Sides() as solver:
        vmap(jacrev(lambda a, b: L.solve(a, b), (0, 1)))(a, b)
    assert solver.seen == [(5, 3, 3)]


@pytest.mark.parametrize("name", ["triangular, lower", "cholesky", "cholesky_solve"])
def test_one_row_is_one_call(name):
    """PyTorch's own formula takes a single row, as one call: it has no more ops, and Python sees none of them."""
    a = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f = lambda a: SYSTEMS[name](a).sin().sum()
    with Sides() as alone:
        f(a)
    with Sides() as solver:
        jacrev(f)(a)
    assert solver.seen == alone.seen
