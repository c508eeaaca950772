"""An implicit step of the two-dimensional Brusselator with half a million unknowns.

    python examples/implicit_step.py            512 × 512 points: within a minute and 4 GB
    python examples/implicit_step.py --n 64     a smaller grid

One implicit Euler step solves w - w₀ - h f(w) = 0. The Jacobian of the left side has twelve entries a point;
`J.solve` factorises it once and keeps the factors, so each further right side costs a hundredth of the first.
Stiff solvers therefore keep J for all iterations of a step (simplified Newton, Hairer & Wanner, Solving
Ordinary Differential Equations II, IV.8); the residual then falls by a constant factor, here of a thousand.

On a grid of 32 × 32 the same step is made with dense matrices from torch.func.jacrev, as a check.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

import torchjac
from brusselator import brusselator, initial_state


def residual_of_step(start: Tensor, h: float) -> Callable[[Tensor], Tensor]:
    """The equation of an implicit Euler step of size h from a state."""
    return lambda w: w - start - h * brusselator(w, h)


def simplified_newton(residual: Callable[[Tensor], Tensor], state: Tensor, goal: float = 1e-10) -> Tensor:
    """A root of the residual, by Newton's method with the Jacobian of the first iteration."""
    begin = perf_counter()
    J = torchjac.jacobian(residual)(state)
    print(f"{J}\n{J.nnz / state[0].numel():g} entries a point, kind {J.kind}, {perf_counter() - begin:.2f} s")
    first = float(residual(state).norm())
    for iteration in range(20):
        begin = perf_counter()
        state = state - J.solve(residual(state))
        norm = float(residual(state).norm())
        print(f"iteration {iteration + 1}: residual {norm:.1e}, {perf_counter() - begin:.2f} s", flush=True)
        if norm <= goal * first:
            return state
    raise RuntimeError(f"no convergence: the residual is still {norm:.1e}, {first:.1e} at first")


def dense_newton(residual: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """The same root by Newton's method with dense Jacobians of torch.func."""
    for _ in range(5):
        matrix = torch.func.jacrev(residual)(state).reshape(state.numel(), state.numel())
        state = state - torch.linalg.solve(matrix, residual(state).flatten()).view_as(state)
    return state


def peak_memory() -> str:
    """The most memory this process has held so far, where the system tells."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return "unknown"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{getrusage(RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB"


def main(argv: list[str] | None = None) -> None:
    """Make the step, and the small one that checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=512, help="points along a side of the grid")
    parser.add_argument("--h", type=float, default=1e-3, help="size of the step")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    begin = perf_counter()

    start = initial_state(options.n)
    print(f"{start.numel():,} unknowns")
    simplified_newton(residual_of_step(start, options.h), start)
    print(f"in all {perf_counter() - begin:.1f} s, peak memory {peak_memory()}\n")

    print("32 × 32, beside dense matrices:")
    start = initial_state(32)
    residual = residual_of_step(start, options.h)
    ours, dense = simplified_newton(residual, start), dense_newton(residual, start)
    print(f"largest difference from the dense step: {float((ours - dense).abs().max()):.1e}")


if __name__ == "__main__":
    main()
