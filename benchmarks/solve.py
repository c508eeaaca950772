"""Systems with a Jacobian as their matrix, beside what one would write by hand with SciPy: how long each takes.

    python benchmarks/solve.py                    the table
    python benchmarks/solve.py --small            small sizes, to see that it runs
    python benchmarks/solve.py --only KKT Bratu   some rows

Both sides are measured in one process with one thread, in processor time, the medians of turns. "first" is the
first system of a pattern, whose analysis is kept; "again" is the next one with other values, from blocks to solution;
"peer" is the best of SciPy's own ways for the matrix that is there already (SuperLU in each ordering, LAPACK's bands,
its iterative solvers through CSR), and for whole Newton solves what `benchmarks/newton.py` writes with CasADi and with
JAX and asdex, where these are installed; for bundle adjustment it is the time that was aimed at. The ratio is that of
"again" to "peer", and the goal stands beside it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, TypeAlias

import numpy
import scipy
import torch
from scipy.linalg import solve_banded
from scipy.sparse.linalg import cg, splu
from torch import Tensor
from torch.nn.functional import pad

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.newton import ORDERINGS, Equations, bratu, brusselator, by_casadi, by_jax, ours
from benchmarks.timing import alternate
from torchjac import Jacobian, compile, grad, jacobian, value_and_jacobian

#: Each call is measured for so long.
SECONDS = 1.0
DOUBLE = torch.float64


class Row(NamedTuple):
    """A line of the table; seconds, and the goal of the ratio. ``peer`` is NaN where there is none."""

    name: str
    first: float
    again: float
    peer: float
    goal: float
    how: str


def medians(calls: dict[str, Callable[[], Any]]) -> list[float]:
    """The medians of the processor time of some calls, which take turns."""
    found = alternate(calls, SECONDS, clock="cpu")
    return [each[0] for each in found.values() if each is not None]


def anew(jac: Jacobian) -> Jacobian:
    """The Jacobian as the next call would give it: its blocks, and nothing that was worked out of them."""
    return Jacobian(replace(jac.form), jac.report)


def system(
    name: str, f: Callable[[Tensor], Tensor], x: Tensor, goal: float, peer: Callable[..., Peers]
) -> Row:
    """One system, solved from its blocks."""
    jac = jacobian(f)(x)
    right = torch.rand(jac.out_shape, dtype=DOUBLE)
    begin = process_time()
    solved = jac.solve(right)
    first = process_time() - begin
    error = (jac @ solved - right).norm() / right.norm()
    assert error < 1e-8, f"{name}: relative residual {error:.1e}"
    calls = {"ours": lambda: anew(jac).solve(right), **peer(jac, right.numpy().reshape(-1))}
    again, *peers = medians(calls)
    how = jac.explain().answers[0].removeprefix("solve: ").split(":")[0]
    return Row(name, first, again, min(peers), goal, how)


Peers: TypeAlias = "dict[str, Callable[[], Any]]"


def best_ordering(*orderings: str) -> Callable[..., Peers]:
    """SuperLU in some orderings, with and without its symmetric mode."""

    def peers(jac: Jacobian, right: numpy.ndarray) -> Peers:
        matrix = jac.to_scipy("csc")
        symmetric = {"diag_pivot_thresh": 0.1, "options": {"SymmetricMode": True}}
        ways = [{"permc_spec": order, **more} for order in orderings for more in ({}, symmetric)]
        return {str(way): lambda way=way: splu(matrix, **way).solve(right) for way in ways}

    return peers


def bands(below: int, above: int) -> Callable[..., Peers]:
    """LAPACK's band solver on a band that is there."""

    def peers(jac: Jacobian, right: numpy.ndarray) -> Peers:
        matrix = jac.to_scipy("dia")
        band = numpy.zeros((below + above + 1, len(right)))
        for offset, line in zip(matrix.offsets, matrix.data, strict=True):
            band[above - offset] = line
        return {"solve_banded": lambda: solve_banded((below, above), band, right)}

    return peers


def schur(jac: Jacobian, right: numpy.ndarray) -> Peers:
    """An arrow by hand: a diagonal, a last column and a last row."""
    matrix = jac.to_scipy("csr")

    def solve() -> numpy.ndarray:
        diagonal, column = matrix.diagonal()[:-1], matrix[:-1, [-1]].toarray()[:, 0]
        row = matrix[[-1]].toarray()[0]
        scaled, eliminated = right[:-1] / diagonal, column / diagonal
        last = (right[-1] - row[:-1] @ scaled) / (row[-1] - row[:-1] @ eliminated)
        return numpy.append(scaled - eliminated * last, last)

    return {"by hand": solve}


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


def bundle(cameras: int, points: int, observations: int) -> Iterator[Row]:
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

    def step(both: Callable[[Tensor], Any]) -> Jacobian:
        value, jac = both(start)
        damped: Jacobian = jac.gram().add_diagonal(1.0)
        damped.solve(jac.mT @ value)
        return damped

    ways = (
        ("", value_and_jacobian(residual), 0.150),
        (", compiled", compile(value_and_jacobian(residual)), 0.060),
    )
    for name, both, goal in ways:
        begin = process_time()
        damped = step(both)
        first = process_time() - begin
        how = damped.explain().answers[0].removeprefix("solve: ").split(":")[0]
        (again,) = medians({"ours": lambda both=both: step(both)})
        yield Row(
            f"bundle adjustment step{name}", first, again, goal, 1.0, how
        )  # the goal is an absolute time


def newton(name: str, equations: Equations) -> Iterator[Row]:
    """Newton's method to the end, beside those of CasADi and of JAX that are installed."""
    begin = process_time()
    ours(equations)
    first = process_time() - begin
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: ours(equations)}
    with suppress(ImportError):
        calls.update({order: by_casadi(equations, order) for order in ORDERINGS})
    with suppress(ImportError):
        calls["JAX"] = by_jax(equations)
    again, *peers = medians(calls)
    for peer, times, goal in (
        ("CasADi", peers[: len(ORDERINGS)], 1.0),
        ("JAX", peers[len(ORDERINGS) :], 0.7),
    ):
        yield Row(
            f"{name}, beside {peer}", first, again, min(times, default=float("nan")), goal, "whole solve"
        )


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
    by_matrix = lambda: cg(anew(hess).to_scipy(), right, **options)  # noqa: E731
    again, beside = medians({"ours": by_operator, "matrix": by_matrix})
    return Row("mesh of springs, 100 steps of CG", first, again, beside, 1.1, "operator")


def point(*shape: int) -> Tensor:
    """A point at random, the same each time."""
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def indefinite(u: Tensor) -> Tensor:
    """A stencil whose matrix has eigenvalues of both signs."""
    return laplacian(u, 2.7) + 0.1 * u**3


def definite(u: Tensor) -> Tensor:
    """One whose matrix is positive definite."""
    return laplacian(u) + 0.1 * u**3


def rows(small: bool) -> Iterator[tuple[str, Callable[[], Iterable[Row]]]]:
    """The lines of the table, each measured where it is asked for."""
    n, k, side, large, steps = (2000, 500, 24, 40, 100) if small else (10**6, 20_000, 200, 500, 1667)
    colamd, degree = best_ordering("COLAMD"), best_ordering("MMD_AT_PLUS_A")
    both = best_ordering("COLAMD", "NATURAL")
    lagrangian = grad(lambda z: collocation(z, steps))
    yield "KKT", lambda: [system("KKT matrix of collocation", lagrangian, point(6 * steps), 2.0, colamd)]
    yield "tridiagonal", lambda: [system("tridiagonal", three, point(n) + 1, 2.0, bands(1, 1))]
    yield "pentadiagonal", lambda: [system("pentadiagonal", five, point(n) + 1, 2.0, bands(2, 2))]
    yield "indefinite", lambda: [system("indefinite grid", indefinite, point(side, side), 1.2, colamd)]
    yield "definite", lambda: [system("definite grid", definite, point(large, large), 1.2, degree)]
    yield "arrow", lambda: [system("arrow", arrow, point(k) + 0.5, 1.2, both)]
    yield "arrow by hand", lambda: [system("arrow, beside Schur by hand", arrow, point(k) + 0.5, 2.0, schur)]
    yield "bundle", lambda: bundle(*((7, 200, 900) if small else (49, 7776, 31843)))
    yield "mesh", lambda: [mesh(20 if small else 158)]
    yield "Bratu", lambda: newton("Newton on Bratu's equation", bratu(side))
    yield "Brusselator", lambda: newton("Newton on the Brusselator", brusselator(16 if small else 256))


def line(row: Row) -> str:
    """A line of the table, in milliseconds."""
    ratio = row.again / row.peer
    verdict = "no peer" if ratio != ratio else "met" if ratio <= row.goal else "missed"
    times = "  ".join(f"{1e3 * each:>9.1f}" for each in (row.first, row.again, row.peer))
    return f"{row.name:40}  {times}  {ratio:6.2f}  {row.goal:5.2f}  {verdict:8}  {row.how}"


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
    print(f"{'':40}  {'first':>9}  {'again':>9}  {'peer':>9}  {'ratio':>6}  {'goal':>5}  {'':8}  how")
    for name, measure in rows(given.small):
        if not given.only or any(name.startswith(word) for word in given.only):
            for row in measure():
                print(line(row), flush=True)


if __name__ == "__main__":
    main()
