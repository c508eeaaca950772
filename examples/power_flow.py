"""Optimal power flow: the cheapest generation that a grid can carry, on 14 buses of the IEEE or a synthetic grid.

    python examples/power_flow.py                      the IEEE's 14 buses
    python examples/power_flow.py --buses 10000        a synthetic grid, by pounce-solver (pip install pounce-solver)

The unknowns are each bus's angle and voltage and each generator's active and reactive power; cost is quadratic in
active power, and at each bus what is generated is what is consumed and what leaves by the branches (Zimmerman,
Murillo-Sánchez & Thomas, MATPOWER, IEEE Transactions on Power Systems 26 (2011), section III). The functions below say
just that, with index tensors; `torchjac.ipopt.Problem` gives an interior-point solver the sparse Jacobian and the lower
triangle of the Lagrangian's Hessian, with the places of their nonzeros. Where there is no such solver, SciPy's
trust-constr takes the same functions by `torchjac.scipy`.

The checks: MATPOWER's cost of its case14, 8,081.53 an hour, and that all power is accounted for.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from time import perf_counter
from typing import Any, NamedTuple

import numpy
import torch
from matplotlib.figure import Figure
from scipy.optimize import Bounds, minimize
from torch import Tensor

from torchjac.ipopt import Problem
from torchjac.scipy import Constraint, minimize_args

DOUBLE = torch.float64

# MATPOWER's case14: the IEEE's test case of 1962. Power is in hundreds of MW.
# fmt: off
LOADS = [(0, 0), (21.7, 12.7), (94.2, 19), (47.8, -3.9), (7.6, 1.6), (11.2, 7.5), (0, 0), (0, 0), (29.5, 16.6),
         (9, 5.8), (3.5, 1.8), (6.1, 1.6), (13.5, 5.8), (14.9, 5)]
#: bus, most active power, least and most reactive power, cost of MW² and of MW
GENERATORS = [(1, 332.4, 0, 10, 0.0430292599, 20), (2, 140, -40, 50, 0.25, 20), (3, 100, 0, 40, 0.01, 40),
              (6, 100, -6, 24, 0.01, 40), (8, 100, -6, 24, 0.01, 40)]
#: from, to, resistance, reactance, charging, ratio of a transformer
BRANCHES = [
    (1, 2, 0.01938, 0.05917, 0.0528, 1), (1, 5, 0.05403, 0.22304, 0.0492, 1), (2, 3, 0.04699, 0.19797, 0.0438, 1),
    (2, 4, 0.05811, 0.17632, 0.034, 1), (2, 5, 0.05695, 0.17388, 0.0346, 1), (3, 4, 0.06701, 0.17103, 0.0128, 1),
    (4, 5, 0.01335, 0.04211, 0, 1), (4, 7, 0, 0.20912, 0, 0.978), (4, 9, 0, 0.55618, 0, 0.969),
    (5, 6, 0, 0.25202, 0, 0.932), (6, 11, 0.09498, 0.1989, 0, 1), (6, 12, 0.12291, 0.25581, 0, 1),
    (6, 13, 0.06615, 0.13027, 0, 1), (7, 8, 0, 0.17615, 0, 1), (7, 9, 0, 0.11001, 0, 1),
    (9, 10, 0.03181, 0.0845, 0, 1), (9, 14, 0.12711, 0.27038, 0, 1), (10, 11, 0.08205, 0.19207, 0, 1),
    (12, 13, 0.22092, 0.19988, 0, 1), (13, 14, 0.17093, 0.34802, 0, 1),
]
# fmt: on


class Grid(NamedTuple):
    """Loads and shunts of buses, the places of generators with their limits and costs, and branches."""

    load: Tensor  # (buses, 2), active and reactive
    shunt: Tensor  # (buses,)
    generator: Tensor  # (generators,), their buses
    limits: Tensor  # (generators, 3): most active, least and most reactive power
    cost: Tensor  # (generators, 2), for squares and for powers, in MW
    ends: Tensor  # (2, branches)
    branch: Tensor  # (4, branches): resistance, reactance, charging, ratio


def ieee14() -> Grid:
    """The 14 buses."""
    generators = torch.tensor(GENERATORS, dtype=DOUBLE)
    branches = torch.tensor(BRANCHES, dtype=DOUBLE)
    shunt = torch.zeros(14, dtype=DOUBLE)
    shunt[8] = 0.19
    return Grid(
        torch.tensor(LOADS, dtype=DOUBLE) / 100,
        shunt,
        generators[:, 0].long() - 1,
        generators[:, 1:4] / 100,
        generators[:, 4:],
        branches[:, :2].long().T - 1,
        branches[:, 2:].T,
    )


def synthetic(buses: int) -> Grid:
    """A square of buses with neighbours joined and some further apart, a generator at every fifth."""
    make = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(shape, dtype=DOUBLE, generator=make)  # noqa: E731
    side = -int(-(buses**0.5) // 1)
    number = torch.arange(side * side).view(side, side)
    pairs = torch.cat([
        torch.stack([number[:, :-1].reshape(-1), number[:, 1:].reshape(-1)]),
        torch.stack([number[:-1].reshape(-1), number[1:].reshape(-1)]),
        torch.randint(buses, (2, buses // 20), generator=make),
    ], 1)  # fmt: skip
    ends = pairs[:, (pairs < buses).all(0) & (pairs[0] != pairs[1])]
    generator = torch.arange(0, buses, 5)
    count, reactance = len(generator), 0.02 + 0.06 * rand(ends.shape[1])
    return Grid(
        torch.stack([0.25 * rand(buses), 0.08 * rand(buses)], 1),
        torch.zeros(buses, dtype=DOUBLE),
        generator,
        torch.tensor([2.0, -1.0, 1.0], dtype=DOUBLE).repeat(count, 1),
        torch.stack([0.02 + 0.1 * rand(count), 10 + 30 * rand(count)], 1),
        ends,
        torch.stack([reactance / 4, reactance, torch.full_like(reactance, 0.01), torch.ones_like(reactance)]),
    )


def unpacked(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Angles, voltages, active and reactive powers."""
    buses, count = len(grid.load), len(grid.generator)
    angle, voltage, active, reactive = x.split([buses, buses, count, count])
    return angle, voltage, active, reactive


def cost(x: Tensor, grid: Grid) -> Tensor:
    """What an hour costs."""
    power = 100 * unpacked(x, grid)[2]
    return (grid.cost[:, 0] * power**2 + grid.cost[:, 1] * power).sum()


def flows(x: Tensor, grid: Grid) -> Tensor:
    """The powers that enter each branch: active and reactive at its beginning, then at its end."""
    angle, voltage, _, _ = unpacked(x, grid)
    resistance, reactance, charging, ratio = grid.branch
    size = resistance**2 + reactance**2
    g, b = resistance / size, -reactance / size
    (at, to), (va, vb) = grid.ends, voltage[grid.ends]
    turn = angle[at] - angle[to]
    cos, sin, both = turn.cos(), turn.sin(), va * vb / ratio
    inside = b + charging / 2
    return torch.stack([
        g * (va / ratio) ** 2 - both * (g * cos + b * sin),
        -inside * (va / ratio) ** 2 - both * (g * sin - b * cos),
        g * vb**2 - both * (g * cos - b * sin),
        -inside * vb**2 + both * (g * sin + b * cos),
    ])  # fmt: skip


def balance(x: Tensor, grid: Grid) -> Tensor:
    """What is to be zero: at each bus what leaves it less what is generated there, and the first bus's angle."""
    angle, voltage, *power = unpacked(x, grid)
    into = flows(x, grid)
    parts = []
    for kind in (0, 1):
        leaves = grid.load[:, kind] - (grid.shunt * voltage**2 if kind else 0)
        leaves = leaves.index_add(0, grid.ends[0], into[kind]).index_add(0, grid.ends[1], into[2 + kind])
        parts.append(leaves.index_add(0, grid.generator, -power[kind]))
    return torch.cat([*parts, angle[:1]])


def start(grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """A flat start, and the bounds of the unknowns."""
    buses, count = len(grid.load), len(grid.generator)
    angle = torch.full((buses,), torch.pi, dtype=DOUBLE)
    voltage = torch.ones(buses, dtype=DOUBLE)
    most, least_reactive, most_reactive = grid.limits.T
    low = torch.cat([-angle, 0.94 * voltage, torch.zeros(count, dtype=DOUBLE), least_reactive])
    high = torch.cat([angle, 1.06 * voltage, most, most_reactive])
    return torch.cat([0 * angle, voltage, most / 2, (least_reactive + most_reactive) / 2]), low, high


def optimum(grid: Grid, by: str) -> tuple[Tensor, str]:
    """The cheapest powers, and how they were found."""
    x0, low, high = start(grid)
    objective, constraints = (lambda x: cost(x, grid)), (lambda x: balance(x, grid))
    begin = perf_counter()
    if by == "pounce":
        import pounce

        asked = Problem(objective, x0, constraints)
        zeros = numpy.zeros(2 * len(grid.load) + 1)
        solver: Any = pounce.Problem(
            n=len(x0), m=len(zeros), problem_obj=asked, lb=low.numpy(), ub=high.numpy(), cl=zeros, cu=zeros
        )
        solver.add_option("print_level", 0)
        x, told = solver.solve(x0=asked.x0)
        steps = told.get("iter_count", told.get("iterations", "some"))
    else:
        args = minimize_args(objective, x0, [Constraint(constraints, 0, 0)])
        bounds = Bounds(low.numpy(), high.numpy(), keep_feasible=True)
        found = minimize(
            **args, method="trust-constr", bounds=bounds, options={"maxiter": 2000, "gtol": 1e-7}
        )
        x, steps = found.x, found.nit
    return torch.from_numpy(x), f"{steps} steps in {perf_counter() - begin:.1f} s by {by}"


def plot(out: str, x: Tensor, grid: Grid) -> None:
    """Draw voltages and what the generators give, and where the Lagrangian's Hessian has nonzeros."""
    _, voltage, active, _ = unpacked(x, grid)
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(voltage, "o-", markersize=3)
    left.set(title="voltage", xlabel="bus")
    middle.bar(range(len(active)), 100 * active)
    middle.set(title="active power, MW", xlabel="generator")
    rows, columns = Problem(lambda x: cost(x, grid), x, lambda x: balance(x, grid)).hessianstructure()
    right.plot(columns, rows, "k.", markersize=2)
    right.invert_yaxis()
    right.set(title="lower half of the Lagrangian's Hessian", aspect="equal")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Find the optimum, check it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="power_flow.png", help="where to save the picture")
    parser.add_argument("--buses", type=int, help="of a synthetic grid; else the IEEE's 14")
    parser.add_argument("--solver", choices=["pounce", "trust-constr"], help="pounce where it is installed")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    grid = ieee14() if options.buses is None else synthetic(options.buses)
    x, how = optimum(grid, options.solver or ("pounce" if find_spec("pounce") else "trust-constr"))
    _, voltage, active, _ = unpacked(x, grid)
    lost = flows(x, grid)[[0, 2]].sum()
    print(f"{len(grid.load):,} buses, {grid.ends.shape[1]:,} branches, {len(x):,} unknowns: {how}")
    print(f"cost of an hour: {float(cost(x, grid)):,.2f}")
    print(f"voltages: {float(voltage.min()):.4f} to {float(voltage.max()):.4f}")
    print(f"largest imbalance at a bus: {float(balance(x, grid).abs().max()):.1e}")
    apart = active.sum() - grid.load[:, 0].sum() - lost
    print(f"generated less consumed less lost in branches: {float(apart):.1e}")
    plot(options.out, x, grid)


if __name__ == "__main__":
    main()
