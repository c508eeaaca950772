"""Systems with a Jacobian as their matrix, beside what one would write by hand with SciPy: how long each takes.

    python benchmarks/solve.py                    the table
    python benchmarks/solve.py --small            small sizes, to see that it runs
    python benchmarks/solve.py --only KKT Bratu   some rows

Both sides are measured in one process with one thread, in processor time, the median of some turns. "first" is the
first system of a pattern, whose analysis is kept; "again" is the next one with other values, from blocks to solution;
"peer" is the best of SciPy's own ways for the matrix that is there already (SuperLU in each ordering, LAPACK's bands,
its iterative solvers through CSR), and for whole Newton solves the derivatives of CasADi with SuperLU, where CasADi is
installed; for bundle adjustment it is the time that was aimed at. The ratio is that of "again" to "peer", and the goal
stands beside it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, NamedTuple

import numpy
import scipy
import torch
from scipy.linalg import solve_banded
from scipy.sparse import csc_array
from scipy.sparse.linalg import cg, splu
from torch import Tensor
from torch.nn.functional import pad

from torchjac import Jacobian, grad, jacobian

TURNS = 5
DOUBLE = torch.float64


class Row(NamedTuple):
    """A line of the table; seconds, and the goal of the ratio. ``peer`` is NaN where there is none."""

    name: str
    first: float
    again: float
    peer: float
    goal: float
    how: str


def seconds(call: Callable[[], Any], turns: int = TURNS) -> float:
    """The median of the processor time of some calls."""
    times = []
    for _ in range(turns):
        begin = process_time()
        call()
        times.append(process_time() - begin)
    return median(times)


def anew(jac: Jacobian) -> Jacobian:
    """The Jacobian as the next call would give it: its blocks, and nothing that was worked out of them."""
    return Jacobian(replace(jac.form), jac.report)


def system(
    name: str, f: Callable[[Tensor], Tensor], x: Tensor, goal: float, peer: Callable[..., float]
) -> Row:
    """One system, solved from its blocks."""
    jac = jacobian(f)(x)
    right = torch.rand(jac.out_shape, dtype=DOUBLE)
    begin = process_time()
    solved = jac.solve(right)
    first = process_time() - begin
    error = (jac @ solved - right).norm() / right.norm()
    assert error < 1e-8, f"{name}: relative residual {error:.1e}"
    again = seconds(lambda: anew(jac).solve(right))
    how = jac.explain().answers[0].removeprefix("solve: ").split(":")[0]
    return Row(name, first, again, peer(jac, right.numpy().reshape(-1)), goal, how)


def best_ordering(*orderings: str) -> Callable[..., float]:
    """SuperLU in some orderings, with and without its symmetric mode: the fastest."""

    def measure(jac: Jacobian, right: numpy.ndarray) -> float:
        matrix = jac.to_scipy("csc")
        symmetric = {"diag_pivot_thresh": 0.1, "options": {"SymmetricMode": True}}
        ways = [{"permc_spec": order, **more} for order in orderings for more in ({}, symmetric)]
        return min(seconds(lambda way=way: splu(matrix, **way).solve(right), 3) for way in ways)

    return measure


def bands(below: int, above: int) -> Callable[..., float]:
    """LAPACK's band solver on a band that is there."""

    def measure(jac: Jacobian, right: numpy.ndarray) -> float:
        matrix = jac.to_scipy("dia")
        band = numpy.zeros((below + above + 1, len(right)))
        for offset, line in zip(matrix.offsets, matrix.data, strict=True):
            band[above - offset] = line
        return seconds(lambda: solve_banded((below, above), band, right))

    return measure


def schur(jac: Jacobian, right: numpy.ndarray) -> float:
    """An arrow by hand: a diagonal, a last column and a last row."""
    matrix = jac.to_scipy("csr")

    def solve() -> numpy.ndarray:
        diagonal, column = matrix.diagonal()[:-1], matrix[:-1, [-1]].toarray()[:, 0]
        row = matrix[[-1]].toarray()[0]
        scaled, eliminated = right[:-1] / diagonal, column / diagonal
        last = (right[-1] - row[:-1] @ scaled) / (row[-1] - row[:-1] @ eliminated)
        return numpy.append(scaled - eliminated * last, last)

    return seconds(solve, 9)


def laplacian(u: Tensor, diagonal: float = 4.0) -> Tensor:
    """The five-point stencil on a square with zeros around it."""
    p = pad(u, (1, 1, 1, 1))
    return diagonal * u - p[2:, 1:-1] - p[:-2, 1:-1] - p[1:-1, 2:] - p[1:-1, :-2]


def collocation(z: Tensor, steps: int) -> Tensor:
    """The Lagrangian of a pendulum that is swung up, by the trapezoidal rule."""
    (angle, speed, torque, slack), multipliers = (
        z[: 4 * steps].view(steps, 4).T,
        z[4 * steps :].view(steps, 2),
    )
    h = 5 / steps
    pull = torque - 9.81 * angle.sin()
    turns = angle[1:] - angle[:-1] - h / 2 * (speed[1:] + speed[:-1])
    gains = speed[1:] - speed[:-1] - h / 2 * (pull[1:] + pull[:-1])
    rules = torch.cat([torch.stack([turns, gains], 1), torch.stack([angle[:1], speed[:1]], 1)])
    return (torque**2).sum() * h / 2 + (slack**2).sum() / 2 + (multipliers * rules).sum()


def three(x: Tensor) -> Tensor:
    """A tridiagonal system that is not symmetric."""
    return torch.cat([x[:1], x[1:-1] ** 2 * 3 + x[2:].sin() * x[:-2], x[-1:] * 2])


def five(x: Tensor) -> Tensor:
    """A pentadiagonal one."""
    return torch.cat([x[:2], x[2:-2] ** 2 * 3 + x[4:].sin() * x[:-4] + x[1:-3] * x[3:-1], x[-2:] * 2])


def arrow(x: Tensor) -> Tensor:
    """Unknowns that meet only the last one."""
    return torch.cat([x[:-1] ** 2 * 3 + x[-1] * x[:-1].sin(), (x[:-1] ** 2).sum()[None] + 9 * x[-1:]])


def bundle(cameras: int, points: int, observations: int) -> Row:
    """A damped Gauss-Newton step: Jacobian, Gram matrix and system."""
    make = torch.Generator().manual_seed(0)
    more = torch.randint(points, (observations - 2 * points,), generator=make)
    point = torch.cat([torch.arange(points).repeat(2), more]).sort().values
    nth = torch.arange(observations) - torch.searchsorted(point, torch.arange(points))[point]
    camera = (torch.randint(cameras, (points,), generator=make)[point] + 5 * nth) % cameras
    start = torch.cat([torch.tensor([0, 0, 0, 0, 0, -5, 500, 0, 0], dtype=DOUBLE).repeat(cameras, 1).flatten(),
                       torch.randn(3 * points, dtype=DOUBLE, generator=make)])  # fmt: skip
    start[: 9 * cameras].view(-1, 9)[:, :6] += 0.1 * torch.randn(cameras, 6, dtype=DOUBLE, generator=make)

    def residual(x: Tensor) -> Tensor:
        c, p = x[: 9 * cameras].view(cameras, 9)[camera], x[9 * cameras :].view(points, 3)[point]
        angle = c[:, :3].square().sum(-1, keepdim=True).sqrt()
        axis = c[:, :3] / angle
        along = (axis * p).sum(-1, keepdim=True) * axis
        turned = (
            p * angle.cos()
            + torch.linalg.cross(axis, p) * angle.sin()
            + along * (1 - angle.cos())
            + c[:, 3:6]
        )
        flat = -turned[:, :2] / turned[:, 2:]
        square = flat.square().sum(-1, keepdim=True)
        return flat * (1 + c[:, 7:8] * square + c[:, 8:] * square**2) * c[:, 6:7]

    def step(x: Tensor) -> Jacobian:
        jac = jacobian(residual)(x)
        damped = jac.gram().add_diagonal(1.0)
        damped.solve(jac.mT @ residual(x))
        return damped

    begin = process_time()
    damped = step(start)
    first = process_time() - begin
    how = damped.explain().answers[0].removeprefix("solve: ").split(":")[0]
    # The goal is an absolute time.
    return Row("bundle adjustment step", first, seconds(lambda: step(start)), 0.150, 1.0, how)


def newton(
    name: str, f: Callable[[Tensor], Tensor], x: Tensor, symbols: Callable[[Any, Any], Any], goal: float
) -> Row:
    """Newton's method to the end, beside CasADi's Jacobian and SuperLU."""

    def ours() -> Tensor:
        at = x
        for _ in range(20):
            jac, value = jacobian(f)(at), f(at)
            if value.norm() < 1e-9 * x.numel() ** 0.5:
                return at
            at = at - jac.solve(value)
        raise AssertionError(f"{name}: no convergence")

    begin = process_time()
    ours()
    first = process_time() - begin
    return Row(name, first, seconds(ours, 3), casadi_newton(symbols, x), goal, "whole solve")


def casadi_newton(symbols: Callable[[Any, Any], Any], x: Tensor) -> float:
    """The same by CasADi and SuperLU in its best ordering; its compilation of the Jacobian is not counted."""
    try:
        import casadi
    except ImportError:
        return float("nan")
    names = casadi.SX.sym("x", x.numel())
    value = symbols(casadi, names)
    run = casadi.Function("f", [names], [value, casadi.jacobian(value, names)])

    def solve(order: str) -> None:
        at = x.numpy().reshape(-1)
        for _ in range(20):
            value, jac = run(at)
            value = numpy.asarray(value).ravel()
            if numpy.linalg.norm(value) < 1e-9 * len(at) ** 0.5:
                return
            pattern = jac.sparsity()
            matrix = csc_array((jac.nonzeros(), pattern.row(), pattern.colind()), shape=pattern.shape)
            at = at - splu(matrix, permc_spec=order).solve(value)

    return min(seconds(lambda order=order: solve(order), 2) for order in ("COLAMD", "MMD_AT_PLUS_A"))


def bratu(n: int) -> tuple[Callable[[Tensor], Tensor], Tensor, Callable[[Any, Any], Any]]:
    """Bratu's equation on a square, in PyTorch and in CasADi."""
    h2 = 1 / (n + 1) ** 2

    def symbols(casadi: Any, x: Any) -> Any:
        u = casadi.reshape(x, n, n)
        zero = casadi.SX.zeros(n, 1)
        right, left = casadi.horzcat(u[:, 1:], zero), casadi.horzcat(zero, u[:, :-1])
        down, up = casadi.vertcat(u[1:, :], zero.T), casadi.vertcat(zero.T, u[:-1, :])
        return casadi.vec(4 * u - right - left - down - up - h2 * casadi.exp(u))

    return lambda u: laplacian(u) - h2 * u.exp(), torch.zeros(n, n, dtype=DOUBLE), symbols


def mesh(side: int) -> Row:
    """Conjugate gradients with the Hessian of a mesh of springs: the operator beside its CSR matrix."""
    number = torch.arange(side * side).view(side, side)
    ends = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[1:, 1:], number[:-1, :-1])]
    a, b = (torch.cat([pair[k].reshape(-1) for pair in ends]) for k in (0, 1))

    def energy(x: Tensor) -> Tensor:
        return ((x[a] - x[b]).square().sum(-1) - 1).square().sum() + x.square().sum()

    flat = torch.stack(torch.meshgrid(*[torch.arange(side, dtype=DOUBLE)] * 2, indexing="ij"), -1).view(-1, 2)
    hess = jacobian(grad(energy))(1.2 * flat)
    right = numpy.ones(2 * side * side)
    options = {"rtol": 1e-30, "maxiter": 100}

    def by_operator() -> None:
        cg(anew(hess).as_linear_operator(), right, **options)

    begin = process_time()
    by_operator()
    first = process_time() - begin
    by_matrix = seconds(lambda: cg(anew(hess).to_scipy(), right, **options))
    return Row("mesh of springs, 100 steps of CG", first, seconds(by_operator), by_matrix, 1.1, "operator")


def point(*shape: int) -> Tensor:
    """A point at random, the same each time."""
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def indefinite(u: Tensor) -> Tensor:
    """A stencil whose matrix has eigenvalues of both signs."""
    return laplacian(u, 2.7) + 0.1 * u**3


def definite(u: Tensor) -> Tensor:
    """One whose matrix is positive definite."""
    return laplacian(u) + 0.1 * u**3


def rows(small: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The lines of the table, each measured where it is asked for."""
    n, k, side, large, steps = (2000, 500, 24, 40, 100) if small else (10**6, 20_000, 200, 500, 1667)
    colamd, degree = best_ordering("COLAMD"), best_ordering("MMD_AT_PLUS_A")
    both = best_ordering("COLAMD", "NATURAL")
    lagrangian = grad(lambda z: collocation(z, steps))
    yield "KKT", lambda: system("KKT matrix of collocation", lagrangian, point(6 * steps), 2.0, colamd)
    yield "tridiagonal", lambda: system("tridiagonal", three, point(n) + 1, 2.0, bands(1, 1))
    yield "pentadiagonal", lambda: system("pentadiagonal", five, point(n) + 1, 2.0, bands(2, 2))
    yield "indefinite", lambda: system("indefinite grid", indefinite, point(side, side), 1.2, colamd)
    yield "definite", lambda: system("definite grid", definite, point(large, large), 1.2, degree)
    yield "arrow", lambda: system("arrow", arrow, point(k) + 0.5, 1.2, both)
    yield "arrow by hand", lambda: system("arrow, beside Schur by hand", arrow, point(k) + 0.5, 2.0, schur)
    yield "bundle", lambda: bundle(*((7, 200, 900) if small else (49, 7776, 31843)))
    yield "Bratu", lambda: newton("Newton on Bratu's equation", *bratu(side), 1.0)
    yield "mesh", lambda: mesh(20 if small else 158)


def line(row: Row) -> str:
    """A line of the table, in milliseconds."""
    ratio = row.again / row.peer
    verdict = "no peer" if ratio != ratio else "met" if ratio <= row.goal else "missed"
    times = "  ".join(f"{1e3 * each:>9.1f}" for each in (row.first, row.again, row.peer))
    return f"{row.name:34}  {times}  {ratio:6.2f}  {row.goal:5.2f}  {verdict:8}  {row.how}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", default=[], help="words that the rows begin with")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse")
    print(
        f"torch {torch.__version__}, SciPy {scipy.__version__}, {platform.machine()}, one thread, milliseconds"
    )
    print(f"{'':34}  {'first':>9}  {'again':>9}  {'peer':>9}  {'ratio':>6}  {'goal':>5}  {'':8}  how")
    for name, measure in rows(given.small):
        if not given.only or any(name.startswith(word) for word in given.only):
            print(line(measure()), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
