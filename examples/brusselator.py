"""The Jacobians of a reaction-diffusion system and of a batched network, with the structure torchjac finds.

    python examples/brusselator.py --out brusselator.png

Three things happen. A table shows each Jacobian's shape, nonzeros, blocks and the numbers stored for them,
with the time of torchjac beside torch.func.jacrev (both with one thread) where a dense answer fits in memory.
A Newton solve of one implicit Euler step checks that the Jacobian is right and shows what it is for. A plot
shows where the nonzeros stand.

The system is the two-dimensional Brusselator, a standard benchmark of stiff solvers
(https://docs.sciml.ai/SciMLBenchmarksOutput/stable/StiffODE/Bruss/):

    ∂u/∂t = B + u² v - (A + 1) u + α Δu + f(x, y, t)
    ∂v/∂t = A u - u² v + α Δv
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import matplotlib as mpl
import torch
from scipy.sparse import csc_array, eye_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

import torchjac

A, B, ALPHA = 3.4, 1.0, 10.0
Function = Callable[[Tensor], Tensor]


def grid(n: int) -> tuple[Tensor, Tensor]:
    """Coordinates x and y of n × n points of the unit square, as (n, 1) and (1, n)."""
    points = torch.linspace(0, 1, n, dtype=torch.float64)
    return points[:, None], points[None, :]


def initial_state(n: int) -> Tensor:
    """The state at t = 0, shape (2, n, n): u = 22 (y(1-y))^(3/2), v = 27 (x(1-x))^(3/2)."""
    x, y = grid(n)
    return torch.stack([(22 * (y * (1 - y)) ** 1.5).expand(n, n), (27 * (x * (1 - x)) ** 1.5).expand(n, n)])


def forcing(n: int, t: float) -> Tensor:
    """The source f(x, y, t): 5 inside the disc of radius 0.1 around (0.3, 0.6) from t = 1.1 on."""
    x, y = grid(n)
    inside = (x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.1**2
    return 5.0 * inside.double() if t >= 1.1 else torch.zeros(n, n, dtype=torch.float64)


def laplacian(w: Tensor) -> Tensor:
    """The five-point Laplacian on the periodic grid with spacing 1/(n-1)."""
    neighbours = w.roll(1, 0) + w.roll(-1, 0) + w.roll(1, 1) + w.roll(-1, 1)
    return (neighbours - 4 * w) * (w.shape[0] - 1) ** 2


def brusselator(state: Tensor, t: float = 0.0) -> Tensor:
    """The residual: the time derivative of the state, both of shape (2, n, n)."""
    u, v = state
    reaction = u**2 * v
    u_t = B + reaction - (A + 1) * u + ALPHA * laplacian(u) + forcing(u.shape[0], t)
    v_t = A * u - reaction + ALPHA * laplacian(v)
    return torch.stack([u_t, v_t])


def batched_mlp(seed: int = 0) -> Function:
    """A network 32-64-64-32 with tanh between its layers; rows of its input never see each other."""
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.randn(n, m, dtype=torch.float64, generator=generator) / n**0.5
        for n, m in pairwise([32, 64, 64, 32])
    ]

    def network(x: Tensor) -> Tensor:
        for weight in weights[:-1]:
            x = torch.tanh(x @ weight)
        return x @ weights[-1]

    return network


def timed(f: Callable[[Tensor], Any], x: Tensor) -> float:
    """The median time of a call in seconds, of up to nine and about one second."""
    f(x)
    times: list[float] = []
    while len(times) < 9 and sum(times) < 1:
        start = perf_counter()
        f(x)
        times.append(perf_counter() - start)
    return median(times)


def dense_time(f: Function, x: Tensor, entries: int) -> str:
    """How long torch.func.jacrev takes, or why it is not asked: it holds several arrays of this size."""
    size = entries * x.element_size()
    if 4 * size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return f"does not fit ({size / 1e9:,.0f} GB)"
    if size > 4e9:
        return f"not tried ({size / 1e9:,.0f} GB)"
    return milliseconds(timed(torch.func.jacrev(f), x))


def milliseconds(seconds: float) -> str:
    """Three figures."""
    return f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"


def row(name: str, f: Function, x: Tensor) -> str:
    """One line of the table."""
    structured = torchjac.jacobian(f)
    jacobian = structured(x)
    entries = f(x).numel() * x.numel()
    return (
        f"{name:24}{f'{f(x).numel():,} × {x.numel():,}':>19}{jacobian.nnz:>12,}{len(jacobian.blocks):>8}"
        f"{jacobian.stored:>12,}{milliseconds(timed(structured, x)):>12}{dense_time(f, x, entries):>24}"
    )


def sparse_matrix(f: Function, x: Tensor) -> csc_array:
    """The Jacobian of f at x as a SciPy matrix: one row an output element, one column an input element."""
    entries = torchjac.jacobian(f)(x).to_sparse()
    rows, columns = entries.indices()
    return csc_array((entries.values(), (rows, columns)), shape=(f(x).numel(), x.numel()))


def newton(n: int, step: float, count: int = 4) -> list[float]:
    """Residual norms of Newton's method on one implicit Euler step from the initial state.

    The equation is w - w₀ - h f(w) = 0, its matrix I - h ∂f/∂w is sparse and solved directly; with the
    right Jacobian the norm falls quadratically down to rounding.
    """
    start = initial_state(n)
    state, norms = start, []
    for _ in range(count):
        residual = state - start - step * brusselator(state, step)
        norms.append(float(residual.norm()))
        matrix = eye_array(start.numel(), format="csc") - step * sparse_matrix(brusselator, state)
        change = spsolve(matrix.tocsc(), residual.flatten().numpy())
        state = state - torch.from_numpy(change).view_as(state)
    norms.append(float((state - start - step * brusselator(state, step)).norm()))
    return norms


def largest_difference(f: Function, x: Tensor) -> float:
    """The largest difference between our Jacobian and torch.func.jacrev's."""
    ours, theirs = torchjac.jacrev(f)(x), torch.func.jacrev(f)(x)
    return float((ours - theirs).abs().max())


def plot(path: str, n: int) -> None:
    """Draw where the nonzeros of both Jacobians stand."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.5), layout="constrained")
    torchjac.jacobian(brusselator)(initial_state(n)).spy(left)
    left.set_title(f"Brusselator, {n} × {n} grid")
    torchjac.jacobian(batched_mlp())(torch.randn(8, 32, dtype=torch.float64)).spy(right)
    right.set_title("Network 32-64-64-32, batch 8")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Print the table and the checks, and save the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="brusselator.png", help="where to save the plot")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[32, 256], help="points along a side of the grid"
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # with more, times depend on where the scheduler puts them

    print(
        f"{'Jacobian of':24}{'shape':>19}{'nonzeros':>12}{'blocks':>8}{'stored':>12}{'torchjac':>12}"
        f"{'torch.func.jacrev':>24}"
    )
    for n in options.sizes:
        print(row(f"Brusselator {n} × {n}", partial(brusselator, t=2.0), initial_state(n)), flush=True)
    batch = torch.randn(64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    print(row("network, batch of 64", batched_mlp(), batch), flush=True)

    print()
    print(
        f"largest difference from torch.func.jacrev: {largest_difference(brusselator, initial_state(8)):.1e}"
        f" (Brusselator 8 × 8), {largest_difference(batched_mlp(), batch[:8]):.1e} (network, batch of 8)"
    )
    n = min(options.sizes)
    norms = newton(n, step=0.01)
    print(
        f"Newton on an implicit Euler step, {n} × {n}: residual "
        + " → ".join(f"{norm:.1e}" for norm in norms)
    )
    plot(options.out, min(n, 12))
    print(f"nonzeros drawn in {options.out}")


if __name__ == "__main__":
    main()
