"""Optimal control by Newton's method on the optimality conditions: a pendulum is swung up.

    python examples/optimal_control.py --out optimal_control.png

All states x₁ … x_N and controls u₀ … u_{N−1} are unknowns at once, tied by the steps of the dynamics with a
multiplier each (Nocedal & Wright, Numerical Optimization, 2006, chapter 18; Betts, Practical Methods for
Optimal Control, 2010):

    L(x, u, λ) = cost(x, u) + Σₖ λₖ · (xₖ₊₁ − step(xₖ, uₖ))

Where the cost is least the gradient of L vanishes. Its Jacobian, the KKT matrix, ties each time to its
neighbours only: with the unknowns of one time next to each other it is banded, and `J.solve` factorises it at a
cost linear in the horizon. A step of Newton's method is halved until the gradient shrinks.

Checks: for a linear system with quadratic cost the same program gives in one step what Riccati's recursion
gives; for the pendulum the gradient falls to rounding and the multipliers are the cost's own derivatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import torchjac

STEP = 0.05


class Problem(NamedTuple):
    """A step of the dynamics, the cost of each time and of the end, and where it begins."""

    step: Callable[[Tensor, Tensor], Tensor]
    cost: Callable[[Tensor, Tensor], Tensor]
    final: Callable[[Tensor], Tensor]
    start: Tensor


def swing(state: Tensor, control: Tensor) -> Tensor:
    """A pendulum (θ, ω) with a torque, by Heun's method."""

    def slope(state: Tensor) -> Tensor:
        return torch.stack([state[:, 1], -9.81 * state[:, 0].sin() + control[:, 0]], -1)

    k1 = slope(state)
    return state + STEP / 2 * (k1 + slope(state + STEP * k1))


def upright(state: Tensor) -> Tensor:
    """The square of the distance from standing upright, θ = π, at rest."""
    return 100 * ((state[..., 0] - torch.pi).square() + 0.1 * state[..., 1].square()).sum()


PENDULUM = Problem(
    swing,
    lambda states, controls: STEP / 2 * controls.square().sum(),
    upright,
    torch.zeros(2, dtype=torch.float64),
)

A = torch.tensor([[1.0, STEP], [0.0, 1.0]], dtype=torch.float64)
B = torch.tensor([[0.0], [STEP]], dtype=torch.float64)
Q = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
R = torch.tensor([[0.5]], dtype=torch.float64)
CART = Problem(
    lambda states, controls: states @ A.T + controls @ B.T,
    lambda states, controls: ((states @ Q) * states).sum() / 2 + ((controls @ R) * controls).sum() / 2,
    lambda state: 5 * state.square().sum(),
    torch.tensor([1.0, -0.5], dtype=torch.float64),
)


def parts(unknowns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers, controls and states of all times, from rows (λₖ, uₖ, xₖ₊₁) of one time each."""
    return unknowns[:, :2], unknowns[:, 2:3], unknowns[:, 3:]


def lagrangian(unknowns: Tensor, problem: Problem) -> Tensor:
    """Cost plus multipliers times what the dynamics leave over."""
    multipliers, controls, states = parts(unknowns)
    before = torch.cat([problem.start[None], states[:-1]])
    gap = states - problem.step(before, controls)
    return problem.cost(states[:-1], controls) + problem.final(states[-1]) + (multipliers * gap).sum()


def optimum(problem: Problem, times: int, first: Tensor | None = None) -> tuple[Tensor, list[float]]:
    """The unknowns (times, 5) at which the gradient vanishes, and its norm after each step."""
    gradient = torchjac.jacrev(lagrangian)
    unknowns, norms = torch.zeros(times, 5, dtype=torch.float64) if first is None else first, []
    for _ in range(50):
        residual, kkt = torchjac.value_and_jacobian(gradient)(unknowns, problem)
        norms.append(float(residual.norm()))
        if norms[-1] < 1e-9:
            return unknowns, norms
        change, length = kkt.solve(residual), 1.0
        while float(gradient(unknowns - length * change, problem).norm()) > (1 - length / 4) * norms[-1]:
            length /= 2
            if length < 1e-6:
                raise RuntimeError(
                    f"Newton's method is stuck at a gradient of {norms[-1]:.1e}; try other first unknowns"
                )
        unknowns = unknowns - length * change
    raise RuntimeError(f"Newton's method has not converged, the gradient is {norms[-1]:.1e}")


def riccati(times: int) -> tuple[Tensor, Tensor]:
    """Controls and states of the linear problem by Riccati's recursion, backwards then forwards."""
    V, gains = 10 * torch.eye(2, dtype=torch.float64), []
    for k in reversed(range(times)):
        gain = torch.linalg.solve(R + B.T @ V @ B, B.T @ V @ A)
        V = (Q if k else 0 * Q) + A.T @ V @ (A - B @ gain)
        gains.append(gain)
    state, controls, states = CART.start, [], []
    for gain in reversed(gains):
        controls.append(-gain @ state)
        state = A @ state + B @ controls[-1]
        states.append(state)
    return torch.stack(controls), torch.stack(states)


def sensitivity(unknowns: Tensor) -> float:
    """How far the first multiplier is from what it means: the cost's derivative by a push on the first state.

    The derivative is taken by central differences between two optima.
    """
    costs = []
    for push in (1e-4, -1e-4):

        def pushed(state: Tensor, control: Tensor, push: float = push) -> Tensor:
            shift = torch.zeros_like(state)
            shift[0, 1] = push
            return swing(state, control) + shift

        problem = PENDULUM._replace(step=pushed)
        costs.append(float(lagrangian(optimum(problem, len(unknowns), unknowns)[0], problem)))
    return abs((costs[0] - costs[1]) / 2e-4 + float(unknowns[0, 1]))


def plot(out: str, unknowns: Tensor) -> None:
    """Draw the swing, its control, its phases and the KKT matrix."""
    _, controls, states = parts(unknowns)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    time = STEP * torch.arange(len(states) + 1)
    angle = torch.cat([PENDULUM.start[:1], states[:, 0]])
    left.plot(time, angle, label="angle")
    left.step(time[:-1], controls[:, 0], where="post", label="torque")
    left.axhline(torch.pi, color="0.6", linestyle="--", linewidth=1, label="upright")
    left.set_xlabel("time")
    left.legend(loc="lower left")
    for k in range(0, len(angle), max(1, len(angle) // 40)):
        shade = str(0.85 - 0.85 * k / len(angle))
        x, y = float(angle[k].sin()), float(-angle[k].cos())
        middle.plot([0, x], [0, y], color=shade, linewidth=1)
        middle.plot(x, y, "o", color=shade, markersize=5)
    middle.set_aspect("equal")
    middle.set_title("from light to dark")
    kkt = torchjac.jacobian(torchjac.jacrev(lagrangian))(unknowns[:16], PENDULUM)
    kkt.spy(right)
    right.set_title("KKT matrix of the first sixteen times")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Solve both problems, check, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="optimal_control.png", help="where to save the picture")
    parser.add_argument("--times", type=int, default=80, help="steps of the horizon")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    unknowns, norms = optimum(CART, options.times)
    _, controls, states = parts(unknowns)
    expected = riccati(options.times)
    difference = max(float((controls - expected[0]).abs().max()), float((states - expected[1]).abs().max()))
    print(f"linear system: {len(norms) - 1} Newton step, {difference:.1e} from Riccati's recursion")
    unknowns, norms = optimum(PENDULUM, options.times)
    print(torchjac.jacobian(torchjac.jacrev(lagrangian))(unknowns, PENDULUM))
    print(
        f"pendulum: gradient {' → '.join(f'{norm:.1e}' for norm in (norms[0], *norms[-3:]))} in {len(norms) - 1} steps"
    )
    print(
        f"pendulum ends at {float(unknowns[-1, 3]) / torch.pi:.4f} π with speed {float(unknowns[-1, 4]):.4f}"
    )
    print(f"first multiplier against the cost's derivative: {sensitivity(unknowns):.1e}")
    plot(options.out, unknowns)
    print(f"swing and KKT matrix drawn in {options.out}")


if __name__ == "__main__":
    main()
