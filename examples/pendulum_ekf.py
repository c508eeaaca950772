"""An extended Kalman filter on a pendulum, two hundred filters at once.

    python examples/pendulum_ekf.py --out pendulum_ekf.png

The state is (θ, ω); one step of Runge-Kutta of fourth order carries it on, and what is measured is the
horizontal position sin θ of the bob, with noise. The filter (Särkkä, Bayesian Filtering and Smoothing, 2013,
section 5.2) linearises both at the estimate:

    F = ∂step/∂state        P ← F P Fᵀ + Q
    H = ∂measure/∂state     S = H P Hᵀ + R,  K = P Hᵀ S⁻¹

With a batch of pendulums both Jacobians are block-diagonal, and `block_diagonal` gives F and H of every filter
from one call. The check is statistical: where a filter is consistent, the error weighted by P⁻¹ has mean 2, the
number of states, and its average over the runs lies within bounds of the chi-square distribution (Bar-Shalom,
Li & Kirubarajan, Estimation with Applications to Tracking and Navigation, 2001, section 5.4). A second check is
physics: for small angles F is the exact flow of the harmonic oscillator.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from scipy.stats import chi2
from torch import Tensor

import torchjac

GRAVITY, STEP = 9.81, 0.02
#: Variances: of the torque that disturbs ω in a step, of a measurement, of the first guess.
DISTURBED, MEASURED, GUESSED = 1e-4, 0.1**2, 0.1**2


def slope(state: Tensor) -> Tensor:
    """d(θ, ω)/dt of a pendulum of length one, for a batch of states."""
    angle, speed = state.unbind(-1)
    return torch.stack([speed, -GRAVITY * angle.sin()], -1)


def step(state: Tensor) -> Tensor:
    """The state one step later, by Runge-Kutta of fourth order."""
    k1 = slope(state)
    k2 = slope(state + STEP / 2 * k1)
    k3 = slope(state + STEP / 2 * k2)
    k4 = slope(state + STEP * k3)
    return state + STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def measure(state: Tensor) -> Tensor:
    """The horizontal position of the bob, (…, 1)."""
    return state[..., :1].sin()


class Run(NamedTuple):
    """What happened, time first: true states, measurements, estimates and their covariances."""

    true: Tensor
    measured: Tensor
    estimate: Tensor
    covariance: Tensor


def filtered(runs: int, steps: int, seed: int = 0) -> Run:
    """Simulate some pendulums and filter what is measured of each."""
    generator = torch.Generator().manual_seed(seed)

    def noise(variance: float, *shape: int) -> Tensor:
        return variance**0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)

    Q = torch.diag(torch.tensor([0.0, DISTURBED], dtype=torch.float64))
    R = MEASURED * torch.eye(1, dtype=torch.float64)
    true = torch.tensor([0.8, 0.0], dtype=torch.float64).expand(runs, 2)
    x = true + noise(GUESSED, runs, 2)
    P = GUESSED * torch.eye(2, dtype=torch.float64).expand(runs, 2, 2)
    kept = []
    for _ in range(steps):
        true = step(true) + torch.nn.functional.pad(noise(DISTURBED, runs, 1), (1, 0))
        y = measure(true) + noise(MEASURED, runs, 1)
        x, F = torchjac.value_and_jacobian(step)(x)
        F = F.block_diagonal()
        P = F @ P @ F.mT + Q
        expected, H = torchjac.value_and_jacobian(measure)(x)
        H = H.block_diagonal()
        gain = torch.linalg.solve(H @ P @ H.mT + R, H @ P).mT
        x = x + (gain @ (y - expected)[..., None])[..., 0]
        keep = torch.eye(2, dtype=torch.float64) - gain @ H
        P = keep @ P @ keep.mT + gain @ R @ gain.mT  # Joseph's form stays symmetric and positive
        kept.append((true, y, x, P))
    return Run(*(torch.stack(column) for column in zip(*kept, strict=True)))


def weighted_errors(run: Run) -> Tensor:
    """eᵀ P⁻¹ e of each filter at each time, (steps, runs)."""
    error = (run.estimate - run.true)[..., None]
    return (error.mT @ torch.linalg.solve(run.covariance, error))[..., 0, 0]


def oscillator() -> float:
    """How far F at rest is from the exact flow of the linear oscillator, exp(STEP · [[0, 1], [−g, 0]])."""
    found = torchjac.jacobian(step)(torch.zeros(2, dtype=torch.float64)).to_dense()
    exact = torch.linalg.matrix_exp(STEP * torch.tensor([[0.0, 1.0], [-GRAVITY, 0.0]], dtype=torch.float64))
    return float((found - exact).abs().max())


def plot(out: str, run: Run, bounds: tuple[float, float]) -> None:
    """Draw one run with its estimate, and the consistency of all."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    time = STEP * torch.arange(1, len(run.true) + 1)
    angle, spread = run.estimate[:, 0, 0], run.covariance[:, 0, 0, 0].sqrt()
    upper.plot(
        time,
        run.measured[:, 0, 0].clamp(-1, 1).asin(),
        ".",
        color="0.75",
        markersize=3,
        label="arcsine of the measurement",
    )
    upper.plot(time, run.true[:, 0, 0], "k", linewidth=1, label="true")
    upper.plot(time, angle, color="C0", linewidth=1.2, label="estimate")
    upper.fill_between(time, angle - 2 * spread, angle + 2 * spread, color="C0", alpha=0.25, label="± 2 σ")
    upper.set_ylabel("angle")
    upper.legend(loc="upper right", ncols=4)
    lower.plot(time, weighted_errors(run).mean(1), color="C0", linewidth=1)
    lower.axhspan(*bounds, color="C2", alpha=0.2, label="95 % of a consistent filter")
    lower.axhline(2, color="C2", linewidth=1)
    lower.set_ylim(0, 4)
    lower.set_ylabel("eᵀ P⁻¹ e, mean of the runs")
    lower.set_xlabel("time")
    lower.legend(loc="upper right")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Filter, check, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="pendulum_ekf.png", help="where to save the picture")
    parser.add_argument("--runs", type=int, default=200, help="how many filters")
    parser.add_argument("--steps", type=int, default=300, help="how many measurements each")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    run = filtered(options.runs, options.steps)
    print(torchjac.jacobian(step)(run.estimate[-1]))
    print(f"transition at rest against the exact oscillator: {oscillator():.1e}")
    errors = (run.estimate - run.true)[..., 0].square().mean().sqrt()
    raw = (run.measured[..., 0].clamp(-1, 1).asin() - run.true[..., 0]).square().mean().sqrt()
    print(
        f"error of the angle: {float(errors):.4f} filtered, {float(raw):.4f} by arcsine of each measurement"
    )
    low, high = (float(chi2.ppf(p, 2 * options.runs)) / options.runs for p in (0.025, 0.975))
    weighted = weighted_errors(run).mean(1)
    inside = float(((low < weighted) & (weighted < high)).double().mean())
    print(
        f"weighted error: mean {float(weighted.mean()):.3f} for 2 states, {inside:.0%} of times within "
        f"{low:.2f} to {high:.2f}"
    )
    plot(options.out, run, (low, high))
    print(f"estimate and consistency drawn in {options.out}")


if __name__ == "__main__":
    main()
