"""Krylov methods on the parts of vectors that a rank has: the products and dots are those of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .._answers.solvers.choose import factorise
from .._answers.solvers.matrix import MatrixPattern
from .._blocks.lazy import Notes

#: The products after which gmres begins anew.
RESTART = 100


class LinearSystem(NamedTuple):
    """A x = b: the product with A, an approximate inverse, dot products, and b."""

    times: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    dots: Callable[[Tensor, Tensor], Tensor]
    right: Tensor

    def norm(self, vector: Tensor) -> float:
        """Return the length of a vector."""
        return math.sqrt(self.dots(vector, vector))


class _Counted:
    """A product that counts its calls, and ends an iteration that takes too many."""

    def __init__(self, times: Callable[[Tensor], Tensor], most: int) -> None:
        self.times, self.left = times, most

    def __call__(self, vector: Tensor) -> Tensor:
        if not self.left:
            raise _Spent
        self.left -= 1
        return self.times(vector)


class _Spent(Exception):
    """All products are used up."""


def solve(system: LinearSystem, name: str, tolerance: float, most: int) -> Tensor:
    """Return the x with A x = b by the method of a name.

    Raises:
        torch.linalg.LinAlgError: where it does not converge.
    """
    length = system.norm(system.right)
    found = torch.zeros_like(system.right)
    if length == 0:
        return found
    counted, residual = system._replace(times=_Counted(system.times, most)), length
    try:
        while True:  # what the method takes for the residual, and goes by, drifts from what it is
            SOLVERS[name](counted, found, tolerance * length)
            before, residual = residual, system.norm(system.right - system.times(found))
            if residual <= tolerance * length:
                return found
            if not residual < before / 2:
                why = "any further"
                break
    except _Spent:
        why = f"in {most:,} products"
    except _BreakdownError as broken:
        why = f"as {broken}"
    residual = system.norm(system.right - system.times(found)) / length
    raise LinAlgError(
        f"solve: {name} did not converge {why}, its relative residual is {residual:.1e}; give preconditioner=, another "
        "solver, or a larger tolerance="
    )


class _BreakdownError(ArithmeticError):
    """A number by which the method divides is zero, or not finite."""


def _divisor(number: float, what: str) -> float:
    if number == 0 or number != number or abs(number) == float("inf"):
        raise _BreakdownError(f"{what} became {number}")
    return number


def cg(system: LinearSystem, x: Tensor, goal: float) -> Tensor:
    """Conjugate gradients, for symmetric positive definite A (Hestenes & Stiefel 1952); x is written into."""
    times, inverse, dots, right = system
    residual = right - times(x)
    direction = inverse(residual).clone()
    product = float(dots(residual, direction))
    while system.norm(residual) > goal:
        along = times(direction)
        curvature = float(dots(direction, along))
        if curvature < 0:
            raise _BreakdownError(
                f"the matrix is not positive definite: a direction has curvature {curvature:.1e}"
            )
        step = product / _divisor(curvature, "the curvature of a direction")
        x.add_(direction, alpha=step)
        residual.sub_(along, alpha=step)
        turned = inverse(residual)
        product, before = float(dots(residual, turned)), product
        direction.mul_(product / _divisor(before, "the length of the residual")).add_(turned)
    return x


def bicgstab(system: LinearSystem, x: Tensor, goal: float) -> Tensor:
    """Stabilised biconjugate gradients, preconditioned from the right (van der Vorst 1992); x is written into."""
    times, inverse, dots, right = system
    residual = right - times(x)
    shadow, direction = residual.clone(), residual.clone()
    product = float(dots(shadow, residual))
    while system.norm(residual) > goal:
        first = inverse(direction)
        along = times(first)
        step = product / _divisor(float(dots(shadow, along)), "the product of shadow and direction")
        residual.sub_(along, alpha=step)
        second = inverse(residual)
        across = times(second)
        own, cross = dots(torch.stack([across, residual]), across).tolist()
        smoothing = cross / own if own else 0.0
        x.add_(first, alpha=step).add_(second, alpha=smoothing)
        residual.sub_(across, alpha=smoothing)
        if system.norm(residual) <= goal:
            break
        before, product = product, float(dots(shadow, residual))
        turn = product / before * step / _divisor(smoothing, "the stabilising step")
        direction.sub_(along, alpha=smoothing).mul_(turn).add_(residual)
    return x


def gmres(system: LinearSystem, x: Tensor, goal: float) -> Tensor:
    """Generalised minimal residuals, preconditioned from the right (Saad & Schultz 1986); x is written into."""
    times, inverse, dots, right = system
    while True:
        residual = right - times(x)
        length = system.norm(residual)
        if length <= goal:
            return x
        basis = [residual / _divisor(length, "the length of the residual")]
        target = [length]
        columns: list[list[float]] = []
        turns: list[tuple[float, float]] = []
        while len(columns) < RESTART and abs(target[-1]) > goal:
            found = times(inverse(basis[-1]))
            rows = torch.stack(basis)
            parts = dots(rows, found)
            found = found - parts @ rows
            again = dots(rows, found)  # twice is enough (Kahan and Parlett)
            found = found - again @ rows
            rest = system.norm(found)
            column = [*(parts + again).tolist(), rest]
            for k, (cosine, sine) in enumerate(turns):
                column[k : k + 2] = _turned(column[k], column[k + 1], cosine, sine)
            size = _divisor(math.hypot(*column[-2:]), "a pivot")
            turns.append((column[-2] / size, column[-1] / size))
            column[-2:] = [size]
            target[-1:] = _turned(target[-1], 0.0, *turns[-1])
            columns.append(column)
            if rest:
                basis.append(found / rest)
        weights = [0.0] * len(columns)
        for k in reversed(range(len(columns))):  # what is left is a triangle
            above = sum(columns[m][k] * weights[m] for m in range(k + 1, len(columns)))
            weights[k] = (target[k] - above) / columns[k][k]
        taken = torch.tensor(weights, dtype=x.dtype, device=x.device)
        x += inverse(taken @ torch.stack(basis[: len(weights)]))


def _turned(first: float, second: float, cosine: float, sine: float) -> list[float]:
    """Return a pair of numbers turned by an angle (Givens)."""
    return [cosine * first + sine * second, cosine * second - sine * first]


#: By name
SOLVERS: dict[str, Callable[[LinearSystem, Tensor, float], Tensor]] = {
    "cg": cg,
    "gmres": gmres,
    "bicgstab": bicgstab,
}


def divided_by(diagonal: Tensor) -> Callable[[Tensor], Tensor]:
    """Division by a diagonal.

    Raises:
        torch.linalg.LinAlgError: if a number on it is zero.
    """
    if bool((diagonal == 0).any()):
        raise LinAlgError('solve: the diagonal has a zero, so preconditioner="jacobi" cannot divide by it')
    inverse = 1 / diagonal
    return lambda vector: inverse * vector


def solved_with(matrix: Any) -> Callable[[Tensor], Tensor]:
    """Return the solution with a sparse matrix of SciPy by rows, factorised in the way that its pattern allows.

    Raises:
        torch.linalg.LinAlgError: if it is singular.
    """
    if matrix.shape[0] == 0:
        return lambda vector: vector
    matrix.sort_indices()
    try:
        factors, _ = factorise(MatrixPattern(matrix.indptr, matrix.indices, Notes()), matrix.data)
    except LinAlgError as error:
        raise LinAlgError(
            f"solve: the block of a rank's own {matrix.shape[0]:,} rows and columns is no preconditioner: {error}"
        ) from error

    def solved(vector: Tensor) -> Tensor:
        found = factors.solve(vector.cpu().numpy().astype(matrix.dtype)[:, None], False)
        return torch.from_numpy(found[:, 0]).to(vector)

    return solved
