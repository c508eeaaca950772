"""Spots grow from noise: the Brusselator in Turing's regime, by an implicit method with a sparse Jacobian.

    python examples/turing_patterns.py --out turing_patterns.png

    ∂u/∂t = a − (b + 1) u + u² v + D Δu        ∂v/∂t = b u − u² v + E Δv

on a periodic square, with v diffusing eight times faster than u. The uniform state (a, b/a) would be stable
without diffusion and is not with it (Turing, The Chemical Basis of Morphogenesis, 1952). Diffusion on the
grid is stiff and the pattern grows slowly, so steps are implicit: Alexander's SDIRK method of second order
(Hairer & Wanner, Solving Ordinary Differential Equations II, IV.6), both stages with one matrix,

    M = I − γ h ∂f/∂w,     γ = 1 − 1/√2

which `jacobian` finds from the program of a stage; `M.solve` factorises it once for all iterations of a step.

Checks: the growth rates of waves on the uniform state, from the Jacobian and from the 2 × 2 matrices that
Fourier's transform leaves of it; and the order of the method, by halving its steps.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from scipy.sparse.linalg import eigs
from torch import Tensor

import torchjac

FEED, CONTROL, SLOW, FAST, SIDE = 4.5, 7.5, 2.0, 16.0, 36.0
GAMMA = 1 - 0.5**0.5


def laplacian(w: Tensor) -> Tensor:
    """The five-point Laplacian on the periodic n × n grid of the square."""
    neighbours = w.roll(1, -1) + w.roll(-1, -1) + w.roll(1, -2) + w.roll(-1, -2)
    return (neighbours - 4 * w) * (w.shape[-1] / SIDE) ** 2


def brusselator(state: Tensor) -> Tensor:
    """The time derivative of the state, both of shape (2, n, n)."""
    u, v = state
    reaction = u**2 * v
    return torch.stack([
        FEED - (CONTROL + 1) * u + reaction + SLOW * laplacian(u),
        CONTROL * u - reaction + FAST * laplacian(v),
    ])  # fmt: skip


def uniform(n: int) -> Tensor:
    """The state at which nothing happens."""
    values = torch.tensor([FEED, CONTROL / FEED], dtype=torch.float64)
    return values[:, None, None].expand(2, n, n)


def noisy(n: int, size: float = 0.02, seed: int = 0) -> Tensor:
    """The uniform state with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    return uniform(n) * (1 + size * torch.randn(2, n, n, dtype=torch.float64, generator=generator))


def stage(known: Tensor, state: Tensor, h: float, matrix: torchjac.Jacobian) -> Tensor:
    """The w with w − γ h f(w) = known, by simplified Newton iterations from a state."""
    for _ in range(30):
        change = matrix.solve(state - GAMMA * h * brusselator(state) - known)
        state = state - change
        if float(change.abs().max()) < 1e-10:
            return state
    raise RuntimeError(f"the iteration does not converge with a step of {h}; take smaller steps")


def step(state: Tensor, h: float) -> Tensor:
    """The state a time h later."""
    matrix = torchjac.jacobian(lambda w: w - GAMMA * h * brusselator(w))(state)
    first = stage(state, state, h, matrix)
    slope = (first - state) / (GAMMA * h)
    return stage(state + (1 - GAMMA) * h * slope, first, h, matrix)


def growth(n: int) -> tuple[float, float]:
    """The fastest growth rate of a small wave: by the Jacobian's eigenvalues, and by Fourier's formula."""
    jacobian = torchjac.jacobian(brusselator)(uniform(n))
    # Eight waves share the eigenvalue, since a square has eight symmetries: several at once, from one start.
    start = noisy(n, 1.0).reshape(-1).numpy()
    found = float(eigs(jacobian.to_scipy("csc"), k=6, sigma=1.0, which="LM", v0=start)[0].real.max())
    turn = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    line = (2 * turn.cos() - 2) * (n / SIDE) ** 2
    waves = (line[:, None] + line[None, :]).reshape(-1)
    u, v = FEED, CONTROL / FEED
    matrices = torch.stack([
        torch.stack([2 * u * v - CONTROL - 1 + SLOW * waves, u**2 + 0 * waves], -1),
        torch.stack([CONTROL - 2 * u * v + 0 * waves, -(u**2) + FAST * waves], -1),
    ], -2)  # fmt: skip
    return found, float(torch.linalg.eigvals(matrices).real.max())


def order(n: int = 8, time: float = 0.5) -> float:
    """log₂ of the ratio of errors with steps of one size and of half of it, which is the method's order."""
    ends = []
    for steps in (8, 16, 32):
        state = noisy(n, 0.1)
        for _ in range(steps):
            state = step(state, time / steps)
        ends.append(state)
    coarse, fine = (float((one - other).norm()) for one, other in pairwise(ends))
    return float(torch.tensor(coarse / fine).log2())


def plot(out: str, kept: list[tuple[float, Tensor]]) -> None:
    """Draw u at some times and where the nonzeros of the Jacobian stand."""
    figure = Figure(figsize=(12.5, 7.6), layout="constrained")
    panels = figure.subplots(2, 3).reshape(-1)
    for axes, (time, state) in zip(panels, kept, strict=False):
        image = axes.imshow(state[0], cmap="magma", extent=(0, SIDE, 0, SIDE))
        axes.set_title(f"u at time {time:.1f}")
        figure.colorbar(image, ax=axes)
    torchjac.jacobian(brusselator)(noisy(10)).spy(panels[-1])
    panels[-1].set_title("Jacobian, 10 × 10 grid")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Check the linear theory and the order, let the pattern grow, draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="turing_patterns.png", help="where to save the picture")
    parser.add_argument("--n", type=int, default=40, help="points along a side of the grid")
    parser.add_argument(
        "--steps", type=int, default=60, help="how many steps, from 0.05 to 2 time units each"
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    found, formula = growth(options.n)
    print(torchjac.jacobian(brusselator)(uniform(options.n)))
    print(f"fastest growth: {found:.9f} by the Jacobian's eigenvalues, {formula:.9f} by Fourier's formula")
    print(f"order of the method: {order():.2f}")
    state, time, kept = noisy(options.n), 0.0, [(0.0, noisy(options.n))]
    marks = [options.steps * k // 4 for k in range(1, 5)]
    for number in range(1, options.steps + 1):
        h = min(0.05 * 1.1**number, 2.0)
        state, time = step(state, h), time + h
        if number in marks:
            kept.append((time, state))
            low, high = (float(end) for end in state[0].aminmax())
            speed = float(brusselator(state).abs().max())
            print(f"time {time:6.1f}: u from {low:.3f} to {high:.3f}, |dw/dt| up to {speed:.1e}")
    low, high = (float(end) for end in state[0].aminmax())
    print(f"in the end u runs from {low:.3f} to {high:.3f}")
    plot(options.out, kept)
    print(f"pattern drawn in {options.out}")


if __name__ == "__main__":
    main()
