"""Newton's method to the end, beside what one would write with CasADi or with JAX and asdex, and SciPy.

All solve the same equations from the same start to the same residual. CasADi's Jacobian is solved by SuperLU in the
better of two orderings, JAX's as SciPy does by default, in COLAMD. Symbols, patterns, colourings and compiled code are
made once, before the loop, and not counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import torch
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import pad

from torchjac import jacobian

MOST_STEPS, PRECISION = 30, 1e-9


class Equations(NamedTuple):
    """Equations in PyTorch, in CasADi and in JAX, as functions of the flat unknowns, and a start."""

    torch: Callable[[Tensor], Tensor]
    start: Tensor
    casadi: Callable[[Any, Any], Any]
    jax: Callable[[Any, Any], Any]


def bratu(n: int) -> Equations:
    """Bratu's equation on a square, −Δu = exp(u), with zeros around it."""
    h2 = 1 / (n + 1) ** 2

    def of_torch(u: Tensor) -> Tensor:
        p = pad(u, (1, 1, 1, 1))
        return 4 * u - p[2:, 1:-1] - p[:-2, 1:-1] - p[1:-1, 2:] - p[1:-1, :-2] - h2 * u.exp()

    def of_casadi(casadi: Any, x: Any) -> Any:
        u = casadi.reshape(x, n, n)
        zero = casadi.SX.zeros(n, 1)
        right, left = casadi.horzcat(u[:, 1:], zero), casadi.horzcat(zero, u[:, :-1])
        down, up = casadi.vertcat(u[1:, :], zero.T), casadi.vertcat(zero.T, u[:-1, :])
        return casadi.vec(4 * u - right - left - down - up - h2 * casadi.exp(u))

    def of_jax(jax: Any, x: Any) -> Any:
        u = x.reshape(n, n)
        p = jax.numpy.pad(u, 1)
        found = 4 * u - p[2:, 1:-1] - p[:-2, 1:-1] - p[1:-1, 2:] - p[1:-1, :-2] - h2 * jax.numpy.exp(u)
        return found.reshape(-1)

    return Equations(of_torch, torch.zeros(n, n, dtype=torch.float64), of_casadi, of_jax)


def brusselator(n: int) -> Equations:
    """A long implicit step of the Brusselator on a periodic square."""
    make = torch.Generator().manual_seed(0)
    start = torch.tensor([1.0, 3.4], dtype=torch.float64)[:, None, None]
    start = start + 0.2 * torch.rand(2, n, n, dtype=torch.float64, generator=make)
    given, step = start.numpy(), 0.5
    number = numpy.arange(n * n).reshape(n, n)
    around = [numpy.roll(number, by, dim).reshape(-1).tolist() for by in (1, -1) for dim in (0, 1)]

    def of_torch(u: Tensor) -> Tensor:
        a, b = u
        spread = sum(u.roll(by, dim) for by in (1, -1) for dim in (1, 2)) - 4 * u
        return u - start - step * (0.1 * spread + torch.stack([1 + a * a * b - 4.4 * a, 3.4 * a - a * a * b]))

    def of_casadi(casadi: Any, x: Any) -> Any:
        parts = []
        a, b = x[: n * n], x[n * n :]
        for k, (u, rate) in enumerate(((a, 1 + a * a * b - 4.4 * a), (b, 3.4 * a - a * a * b))):
            spread = sum((u[at] for at in around), -4 * u)
            parts.append(u - casadi.DM(given[k].reshape(-1)) - step * (0.1 * spread + rate))
        return casadi.vertcat(*parts)

    def of_jax(jax: Any, x: Any) -> Any:
        u = x.reshape(2, n, n)
        a, b = u
        spread = sum(jax.numpy.roll(u, by, dim) for by in (1, -1) for dim in (1, 2)) - 4 * u
        rate = jax.numpy.stack([1 + a * a * b - 4.4 * a, 3.4 * a - a * a * b])
        return (u - given - step * (0.1 * spread + rate)).reshape(-1)

    return Equations(of_torch, start, of_casadi, of_jax)


def ours(equations: Equations) -> Tensor:
    """The Jacobian as an operator, solved as it says itself."""
    f, at = equations.torch, equations.start
    for _ in range(MOST_STEPS):
        value = f(at)
        if value.norm() < PRECISION * at.numel() ** 0.5:
            return at
        at = at - jacobian(f)(at).solve(value)
    raise AssertionError("no convergence")


#: SuperLU's defaults, and minimum degree with pivots on the diagonal, which suits these matrices.
ORDERINGS: dict[str, dict[str, Any]] = {
    "COLAMD": {},
    "MMD_AT_PLUS_A": {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}},
}


def by_casadi(equations: Equations, order: str) -> Callable[[], numpy.ndarray]:
    """CasADi's virtual machine and SuperLU in an ordering."""
    import casadi

    names = casadi.SX.sym("x", equations.start.numel())
    value = equations.casadi(casadi, names)
    run = casadi.Function("f", [names], [value, casadi.jacobian(value, names)])

    def solve() -> numpy.ndarray:
        at = equations.start.numpy().reshape(-1)
        for _ in range(MOST_STEPS):
            found, jac = run(at)
            found = numpy.asarray(found).ravel()
            if numpy.linalg.norm(found) < PRECISION * len(at) ** 0.5:
                return at
            pattern = jac.sparsity()
            matrix = csc_array((jac.nonzeros(), pattern.row(), pattern.colind()), shape=pattern.shape)
            at = at - splu(matrix, permc_spec=order, **ORDERINGS[order]).solve(found)
        raise AssertionError("no convergence")

    return solve


def by_jax(equations: Equations) -> Callable[[], numpy.ndarray]:
    """JAX with asdex, jitted, and SuperLU as SciPy calls it by default."""
    # Before it is imported: one thread, as for all others.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import asdex
    import jax

    jax.config.update("jax_enable_x64", True)
    size = equations.start.numel()
    f = lambda x: equations.jax(jax, x)  # noqa: E731
    sparsity = asdex.jacobian_sparsity(f, jax.numpy.zeros(size))
    coloring = asdex.jacobian_coloring_from_sparsity(sparsity)
    value, jacobian_of = jax.jit(f), jax.jit(asdex.jacobian_from_coloring(f, coloring, "bcoo"))

    def solve() -> numpy.ndarray:
        at = equations.start.numpy().reshape(-1)
        for _ in range(MOST_STEPS):
            found = numpy.asarray(value(at))
            if numpy.linalg.norm(found) < PRECISION * len(at) ** 0.5:
                return at
            jac = jacobian_of(at)
            rows, columns = numpy.asarray(jac.indices).T
            matrix = csc_array((numpy.asarray(jac.data), (rows, columns)), shape=(size, size))
            at = at - splu(matrix).solve(found)
        raise AssertionError("no convergence")

    return solve
