"""Solvers that the caller names or brings: direct ones of other packages, and SciPy's iterative ones."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import numpy
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .choose import sparse_lu
from .matrix import Array, Factors, MatrixPattern, singular

Factorise: TypeAlias = Callable[[MatrixPattern, Array], tuple[Factors, str]]

#: Iterations stop where the residual is this part of the right side.
TOLERANCE = {numpy.dtype(numpy.float64): 1e-10, numpy.dtype(numpy.float32): 1e-5}

#: Unknowns that "block-jacobi" takes together.
BLOCK = 16

NAMES = ("superlu", "pardiso", "mumps", "qdldl", "cg", "gmres", "minres")
PRECONDITIONERS = ("jacobi", "block-jacobi", "ilu", "amg")


def factorise_by(solver: Any, preconditioner: Any) -> Factorise:
    """Return how a matrix is factorised by a solver that is named, or is an object with the methods of one.

    Raises:
        ValueError: for an unknown name, or a preconditioner of a direct solver.
        TypeError: for an object without the methods.
    """
    iterative = solver in ("cg", "gmres", "minres") if isinstance(solver, str) else False
    if preconditioner is not None and not iterative:
        raise ValueError(f"solve: preconditioner= goes with solver='cg', 'gmres' or 'minres', got {solver!r}")
    if isinstance(preconditioner, str) and preconditioner not in PRECONDITIONERS:
        raise ValueError(f"solve: preconditioner must be one of {PRECONDITIONERS}, got {preconditioner!r}")
    if not isinstance(solver, str):
        missing = [name for name in ("factor", "solve", "solve_transposed") if not hasattr(solver, name)]
        if missing:
            raise TypeError(
                "solve: solver must be a name or have the methods factor(matrix), solve(factors, b) and "
                f"solve_transposed(factors, b); {type(solver).__name__} lacks {', '.join(missing)}"
            )
        return lambda pattern, values: (
            UserFactors(solver, pattern, values),
            f"solver {type(solver).__name__}",
        )
    if solver not in NAMES:
        raise ValueError(f"solve: solver must be one of {NAMES} or an object, got {solver!r}")
    if iterative:
        return lambda pattern, values: _krylov(solver, preconditioner, pattern, values)
    if solver == "superlu":
        return sparse_lu
    return lambda pattern, values: (_packaged(solver, pattern, values), solver)


def matrix_of(pattern: MatrixPattern, values: Array) -> Any:
    """Return SciPy's matrix by rows."""
    from scipy.sparse import csr_array

    return csr_array((values, pattern.index, pattern.begin), shape=(pattern.size, pattern.size))


class UserFactors:
    """Factors made by a solver object."""

    def __init__(self, solver: Any, pattern: MatrixPattern, values: Array) -> None:
        self._solver = solver
        self._factors = solver.factor(matrix_of(pattern, values).tocsc())

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right."""
        act = self._solver.solve_transposed if transposed else self._solver.solve
        return numpy.asarray(act(self._factors, right)).reshape(right.shape)

    def slogdet(self) -> tuple[float, float]:
        """Not known of a solver that is brought."""
        raise NotImplementedError("slogdet: a solver that is named only solves")


def _packaged(name: str, pattern: MatrixPattern, values: Array) -> UserFactors:
    try:
        return UserFactors(Packaged(PACKAGED[name]), pattern, values)
    except RuntimeError as error:
        raise singular(pattern, values, f"{name}: {error}") from error


class Packaged:
    """A direct solver of another package, in double precision; Aᵀ is factorised where that is asked for."""

    def __init__(self, make: Callable[[Any], Callable[[Array], Any]]) -> None:
        self._make = make

    def factor(self, matrix: Any) -> tuple[Any, dict[bool, Any]]:
        """Factorise, and keep the matrix for its transpose."""
        matrix = matrix.astype(numpy.float64)
        return matrix, {False: self._make(matrix)}

    def solve(self, factors: tuple[Any, dict[bool, Any]], right: Array, transposed: bool = False) -> Array:
        """Return X with A X = right, column by column."""
        matrix, made = factors
        if transposed not in made:
            made[transposed] = self._make(matrix.T.tocsc())
        columns = [made[transposed](numpy.array(column, numpy.float64)).reshape(-1) for column in right.T]
        return numpy.stack(columns, 1).astype(right.dtype) if columns else right

    def solve_transposed(self, factors: tuple[Any, dict[bool, Any]], right: Array) -> Array:
        """Return X with Aᵀ X = right."""
        return self.solve(factors, right, transposed=True)


def _pardiso(matrix: Any) -> Callable[[Array], Any]:
    """MKL's PARDISO by pypardiso."""
    from scipy.sparse import csr_matrix

    solver, whole = _package("pypardiso").PyPardisoSolver(), csr_matrix(matrix)
    solver.factorize(whole)
    if solver.iparm[13]:  # pivots that were put in the place of zeros; refinement may make up for them
        right = numpy.cos(numpy.arange(whole.shape[0]))
        if numpy.linalg.norm(whole @ solver.solve(whole, right) - right) > 1e-6 * numpy.linalg.norm(right):
            raise RuntimeError(f"{solver.iparm[13]} pivots are zero")
    return lambda right: solver.solve(whole, right)


def _mumps(matrix: Any) -> Callable[[Array], Any]:
    """MUMPS by python-mumps."""
    context: Any = _package("mumps", "python-mumps").Context()
    context.factor(matrix.tocoo())
    return context.solve  # type: ignore[no-any-return]


def _qdldl(matrix: Any) -> Callable[[Array], Any]:
    """L D Lᵀ without pivots by qdldl, for symmetric quasi-definite matrices."""
    from scipy.sparse import csc_matrix

    if (matrix != matrix.T).nnz:
        raise ValueError("solve: solver='qdldl' takes symmetric matrices, and this one is not")
    return _package("qdldl").Solver(csc_matrix(matrix)).solve  # type: ignore[no-any-return]


PACKAGED = {"pardiso": _pardiso, "mumps": _mumps, "qdldl": _qdldl}


def _package(name: str, registered: str | None = None) -> Any:
    """Return a package, or an error that names it as pip knows it."""
    registered = registered or name
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"solve: this solver needs {registered}, which is not installed or does not load ({error}); pip install "
            f"{registered}"
        ) from error


def _krylov(name: str, preconditioner: Any, pattern: MatrixPattern, values: Array) -> tuple[Factors, str]:
    if preconditioner == "ilu" and pattern.is_singular:  # SuperLU's too, see `SuperLU`
        raise singular(pattern, values, "some row has no pivot")
    matrix = matrix_of(pattern, values)
    told = f"{name}, preconditioner {preconditioner if isinstance(preconditioner, (str, type(None))) else 'given'}"
    return Krylov(name, matrix, preconditioner), told


class Krylov:
    """An iterative solver of SciPy's for one matrix; its transpose is solved by the same."""

    def __init__(self, name: str, matrix: Any, preconditioner: Any) -> None:
        self._name, self._matrix, self._preconditioner = name, matrix, preconditioner
        self._made: dict[bool, Any] = {}

    def solve(self, right: Array, transposed: bool) -> Array:
        """Return X with A X = right, or Aᵀ X = right, column by column.

        Raises:
            torch.linalg.LinAlgError: where the iteration does not converge.
        """
        import scipy.sparse.linalg as iterative

        matrix = self._matrix.T.tocsr() if transposed else self._matrix
        if transposed not in self._made:
            self._made[transposed] = _preconditioner(matrix, self._preconditioner)
        found = numpy.empty_like(right)
        for k, column in enumerate(right.T):
            options = {"rtol": TOLERANCE[right.dtype], "M": self._made[transposed]}
            if self._name == "gmres":  # as many steps as the others make; SciPy counts restarts
                options["restart"] = min(100, len(column))
                options["maxiter"] = -(-10 * len(column) // options["restart"])
            found[:, k], info = getattr(iterative, self._name)(matrix, column, **options)
            if info:
                residual = numpy.linalg.norm(matrix @ found[:, k] - column) / numpy.linalg.norm(column)
                raise LinAlgError(
                    f"solve: {self._name} did not converge, its relative residual is {residual:.1e}; give "
                    "preconditioner=, or take a direct solver"
                )
        return found

    def slogdet(self) -> tuple[float, float]:
        """Not known of an iterative solver."""
        raise NotImplementedError("slogdet: an iterative solver only solves")


def _preconditioner(matrix: Any, given: Any) -> Any:
    """Return what approximates the inverse, as SciPy takes it."""
    import scipy.sparse.linalg as linalg

    size = matrix.shape[0]
    if not isinstance(given, str):
        return given
    if given == "jacobi":
        diagonal = matrix.diagonal()
        inverse = 1 / numpy.where(diagonal == 0, 1, diagonal)
        return linalg.LinearOperator((size, size), lambda v: inverse * v.reshape(-1), dtype=matrix.dtype)
    if given == "block-jacobi":
        inverses = [
            numpy.linalg.pinv(matrix[k : k + BLOCK, k : k + BLOCK].toarray()) for k in range(0, size, BLOCK)
        ]
        from scipy.sparse import block_diag

        whole = block_diag(inverses, format="csr")
        return linalg.LinearOperator((size, size), lambda v: whole @ v.reshape(-1), dtype=matrix.dtype)
    if given == "ilu":
        factors = linalg.spilu(matrix.tocsc())
        return linalg.LinearOperator((size, size), factors.solve, dtype=matrix.dtype)
    from scipy.sparse import csr_matrix

    return _package("pyamg").smoothed_aggregation_solver(csr_matrix(matrix)).aspreconditioner()
