"""Solvers that are named or brought, beside the way that is chosen otherwise."""

import copy
import sys
from importlib import import_module
from types import SimpleNamespace

import numpy
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, splu
from torch.func import grad

from torchjac import jacobian
from torchjac._answers.solvers import named

X = torch.rand(120, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ENERGY = lambda x: ((x[1:] - x[:-1]) ** 2).sum() + x.pow(4).sum() + x.square().sum()


def definite():
    """A symmetric positive definite Hessian and its matrix."""
    jac = jacobian(grad(ENERGY))(X)
    return jac, jac.to_dense()


class Doubled:
    """A solver of one's own, which counts its factorisations."""

    def __init__(self):
        self.made = 0

    def factor(self, matrix):
        """L U by SciPy."""
        self.made += 1
        return splu(matrix)

    def solve(self, factors, right):
        """A⁻¹ b."""
        return factors.solve(right)

    def solve_transposed(self, factors, right):
        """A⁻ᵀ b."""
        return factors.solve(right, trans="T")


@pytest.mark.parametrize("solver", ["superlu", "cg", "gmres", "minres"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_names(solver, dtype) -> None:
    """The solution is that of the dense matrix, for several right sides and the transpose, and it is told."""
    jac, dense = definite()
    jac, dense = jac.to(dtype), dense.to(dtype)
    right = torch.randn(120, 2, dtype=dtype)
    close = {"rtol": 1e-6, "atol": 1e-6} if dtype is torch.float64 else {"rtol": 1e-2, "atol": 1e-3}
    torch.testing.assert_close(jac.solve(right, solver), torch.linalg.solve(dense, right), **close)
    torch.testing.assert_close(
        jac.mT.solve(right[:, 0], solver), torch.linalg.solve(dense.T, right[:, 0]), **close
    )
    assert {"superlu": "SuperLU"}.get(solver, solver) in jac.explain().answers[0]
    assert len(jac.explain().answers) == 1
    torch.testing.assert_close(copy.deepcopy(jac).solve(right, solver), jac.solve(right, solver))


@pytest.mark.parametrize("preconditioner", ["jacobi", "block-jacobi", "ilu"])
@pytest.mark.parametrize("solver", ["cg", "gmres"])
def test_preconditioners(solver, preconditioner) -> None:
    """A matrix with very different rows is solved with each preconditioner."""
    weight = torch.logspace(0, 5, 120, dtype=torch.float64)
    jac = jacobian(grad(lambda x: ENERGY(x) + (weight * x**2).sum()))(X)
    right = torch.randn(120, dtype=torch.float64)
    found = jac.solve(right, solver, preconditioner)
    torch.testing.assert_close(found, torch.linalg.solve(jac.to_dense(), right), rtol=1e-5, atol=1e-7)


def test_a_solver_of_ones_own() -> None:
    """An object with the three methods serves both sides, gradients too, with one factorisation."""
    solver = Doubled()
    x = X.clone().requires_grad_()
    jac = jacobian(lambda x: 3 * x**2 + x.roll(1) + 2 * x.roll(-3))(x)
    right = torch.randn(120, dtype=torch.float64)
    (jac.solve(right, solver).sum() + jac.mT.solve(right, solver).sum()).backward()
    assert solver.made == 1
    plain = jacobian(lambda x: 3 * x**2 + x.roll(1) + 2 * x.roll(-3))(x)
    expected = torch.autograd.grad(plain.solve(right).sum() + plain.mT.solve(right).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)
    assert "solver Doubled" in str(jac.explain())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"solver": "cholmod"}, ValueError, "solver must be one of .*'superlu'"),
        ({"solver": 3}, TypeError, "lacks factor, solve, solve_transposed"),
        ({"solver": "superlu", "preconditioner": "ilu"}, ValueError, "goes with solver='cg'"),
        ({"preconditioner": "ilu"}, ValueError, "goes with solver='cg'"),
        ({"solver": "cg", "preconditioner": "ssor"}, ValueError, "preconditioner must be one of"),
    ],
)
def test_errors(given, error, message) -> None:
    """What is not known is refused with what is."""
    with pytest.raises(error, match=message):
        definite()[0].solve(X, **given)


def test_gmres_makes_no_more_steps_than_the_others() -> None:
    """SciPy counts its restarts: a matrix without a solution is given up after ten steps for each unknown."""
    size, count = 120, []
    weights = (torch.arange(size) != 7).double()
    jac = jacobian(lambda x: weights * (4 * x + x.roll(1)))(torch.zeros(size, dtype=torch.float64))
    solver = named.Krylov("gmres", Counted(jac.to_scipy(), count), None)
    with pytest.raises(torch.linalg.LinAlgError, match="gmres did not converge"):
        solver.solve(numpy.ones((size, 1)), transposed=False)
    assert len(count) <= 11 * size


class Counted(LinearOperator):
    """A matrix that counts its products."""

    def __init__(self, matrix, count) -> None:
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.count = matrix, count

    def _matvec(self, vector):
        self.count.append(1)
        return self.matrix @ vector


def test_no_convergence() -> None:
    """An iteration that does not get there is no solution."""
    jac = jacobian(lambda x: x.roll(1) * torch.logspace(0, 9, 120, dtype=torch.float64))(X)
    with pytest.raises(torch.linalg.LinAlgError, match="cg did not converge, its relative residual"):
        jac.solve(X, "cg")


PACKAGES = {"pardiso": "pypardiso", "mumps": "python-mumps", "qdldl": "qdldl", "amg": "pyamg"}


@pytest.mark.parametrize("name", PACKAGES)
def test_other_packages(name) -> None:
    """A package that is missing is named with the command that installs it; one that is there solves."""
    jac, dense = definite()
    given = {"solver": "cg", "preconditioner": "amg"} if name == "amg" else {"solver": name}
    try:
        import_module("mumps" if name == "mumps" else PACKAGES[name])
    except ImportError:
        with pytest.raises(ImportError, match=f"pip install {PACKAGES[name]}"):
            jac.solve(X, **given)
    else:
        numpy.testing.assert_allclose(jac.solve(X, **given), numpy.linalg.solve(dense, X), rtol=1e-7)
        numpy.testing.assert_allclose(jac.mT.solve(X, **given), numpy.linalg.solve(dense, X), rtol=1e-7)
        single = jac.to(torch.float32).solve(X.float()[:, None], **given)
        numpy.testing.assert_allclose(single[:, 0], numpy.linalg.solve(dense, X), rtol=1e-3)


class Stub:
    """Another package's solver: a context, or a solver by columns, or one by rows; dense beneath."""

    def __init__(self, matrix=None):
        self.iparm = numpy.zeros(64, int)
        if matrix is not None:
            self.factor(matrix)

    def factor(self, matrix):
        """Keep the matrix, which must be there in double precision."""
        assert matrix.dtype == numpy.float64
        self.matrix = matrix.toarray()
        if numpy.linalg.matrix_rank(self.matrix) < len(self.matrix):
            raise RuntimeError("numerically singular")

    def factorize(self, matrix):
        """PARDISO tells only how many pivots it put in the place of zeros."""
        self.matrix = matrix.toarray()
        self.iparm[13] = len(self.matrix) - numpy.linalg.matrix_rank(self.matrix)

    def solve(self, *given):
        """The solution; PARDISO is given the matrix too."""
        return numpy.linalg.lstsq(self.matrix, given[-1])[0]


STUBS = {
    "pardiso": ("pypardiso", {"PyPardisoSolver": Stub}),
    "mumps": ("mumps", {"Context": Stub}),
    "qdldl": ("qdldl", {"Solver": Stub}),
}


@pytest.mark.parametrize("name", STUBS)
def test_how_other_packages_are_called(name, monkeypatch) -> None:
    """Both sides, several right sides, float32, gradients, and a singular matrix, by what stands for the package."""
    package, names = STUBS[name]
    monkeypatch.setitem(sys.modules, package, SimpleNamespace(**names))
    jac, dense = definite()
    right = torch.randn(120, 2, dtype=torch.float64)
    torch.testing.assert_close(jac.solve(right, name), torch.linalg.solve(dense, right))
    torch.testing.assert_close(jac.mT.solve(right, name), torch.linalg.solve(dense, right))
    single = jac.to(torch.float32).solve(right.float(), name)
    torch.testing.assert_close(single, torch.linalg.solve(dense, right).float(), rtol=1e-4, atol=1e-5)
    assert jac.solve(right[:, :0], name).shape == (120, 0)
    if name != "qdldl":
        uneven = jacobian(lambda x: 3 * x**2 + x.roll(1))(X + 1)
        expected = torch.linalg.solve(uneven.to_dense().T, right)
        torch.testing.assert_close(uneven.mT.solve(right, name), expected)
    else:
        with pytest.raises(ValueError, match="takes symmetric matrices"):
            jacobian(lambda x: 3 * x**2 + x.roll(1))(X + 1).solve(X, name)
    if name != "qdldl":
        with pytest.raises(torch.linalg.LinAlgError, match="row 7 is zero"):
            jacobian(lambda x: x * (torch.arange(120) != 7))(X).solve(X, name)
