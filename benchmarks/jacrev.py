"""torchjac.jacrev beside torch.func.jacrev: the same function, the same dense answer, in one run.

Each row is checked first (both answers agree), then timed: the two take turns, each turn is long enough for
the clock, and the table shows the median turn. A ratio above 1 means torchjac is faster.

    python benchmarks/jacrev.py               the table
    python benchmarks/jacrev.py --threads 2   with more than one thread
    python benchmarks/jacrev.py --json FILE   the same as data
    python benchmarks/jacrev.py --only MLP    rows whose name contains the word

One thread is the default because more of them make the baseline a matter of luck: where the scheduler puts
two spinning OpenMP threads on one core, every parallel op of torch.func waits for a clock tick, and the
reaction-diffusion row was seen to take 344 ms instead of 8 ms, which flatters the ratio forty-fold.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import torchjac

Function = Callable[[Tensor], Tensor]


class Work(NamedTuple):
    """One row: two ways to the same Jacobian, the input, and the least ratio that is promised."""

    name: str
    ours: Function
    theirs: Function
    x: Tensor
    goal: float = 0.8


class Timed(NamedTuple):
    """One measured row; times are medians in seconds."""

    name: str
    entries: int
    theirs: float
    ours: float
    ratio: float
    goal: float
    rounds: int


def jacobians(name: str, f: Function, x: Tensor, goal: float = 0.8) -> Work:
    """A row that compares the two jacrev."""
    return Work(name, torchjac.jacrev(f), torch.func.jacrev(f), x, goal)


def mlp(*widths: int) -> Function:
    """Linear layers with tanh between them."""
    weights = [torch.randn(n, m) / n**0.5 for n, m in pairwise(widths)]
    biases = [torch.randn(m) for m in widths[1:]]

    def f(x: Tensor) -> Tensor:
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.tanh(x @ weight + bias)
        return x @ weights[-1] + biases[-1]

    return f


def reaction_diffusion(state: Tensor) -> Tensor:
    """The residual of the Brusselator on a line with u = 1, v = 3 held at both ends; state (2, n)."""
    n = state.shape[1]
    u, v = state

    def laplacian(w: Tensor, end: float) -> Tensor:
        w = F.pad(w, (1, 1), value=end)
        return (n + 1) ** 2 * (w[2:] - 2 * w[1:-1] + w[:-2])

    reaction = u * u * v
    u_t = 1 + reaction - 4 * u + laplacian(u, 1.0) / 50
    v_t = 3 * u - reaction + laplacian(v, 3.0) / 50
    return torch.stack([u_t, v_t])


def rosenbrock(x: Tensor) -> Tensor:
    """The chained Rosenbrock function Σ 100 (xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)²."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


# Franka Emika Panda, modified Denavit-Hartenberg (Craig): a, d, alpha of each of the seven joints.
# https://frankaemika.github.io/docs/control_parameters.html
PANDA = [
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -torch.pi / 2),
    (0.0, 0.316, torch.pi / 2),
    (0.0825, 0.0, torch.pi / 2),
    (-0.0825, 0.384, -torch.pi / 2),
    (0.0, 0.0, torch.pi / 2),
    (0.088, 0.107, torch.pi / 2),
]


def arm(angles: Tensor) -> Tensor:
    """Forward kinematics of a seven-joint arm: joint angles (7,) → position of the flange (3,)."""
    sines, cosines = torch.sin(angles), torch.cos(angles)
    position = torch.zeros(3, dtype=angles.dtype)
    for k in reversed(range(7)):
        a, d, alpha = PANDA[k]
        sa, ca = torch.sin(torch.tensor(alpha)).item(), torch.cos(torch.tensor(alpha)).item()
        x, y, z = position
        x, y = cosines[k] * x - sines[k] * y, sines[k] * x + cosines[k] * y
        z = z + d
        position = torch.stack([x + a, ca * y - sa * z, sa * y + ca * z])
    return position


def spherical(x: Tensor) -> Tensor:
    """Spherical to Cartesian coordinates, (3,) → (3,)."""
    r, theta, phi = x
    return torch.stack([r * theta.sin() * phi.cos(), r * theta.sin() * phi.sin(), r * theta.cos()])


def twenty_ops(x: Tensor) -> Tensor:
    """Twenty pointwise ops one after another."""
    for _ in range(5):
        x = torch.tanh(torch.sin(x) * 1.1 + 0.1)
    return x


def works() -> list[Work]:
    """Every row of the table."""
    torch.manual_seed(0)
    line = torch.rand(1000) * 2 - 1
    hessian_ours = torchjac.jacrev(torchjac.jacrev(rosenbrock))
    two_jacrev = torch.func.jacrev(torch.func.jacrev(rosenbrock))
    return [
        jacobians("sin, n=2000", torch.sin, torch.randn(2000)),
        jacobians("MLP 32-64-64-32, batch 64", mlp(32, 64, 64, 32), torch.randn(64, 32), 5),
        jacobians("reaction-diffusion 1-D, 2×500", reaction_diffusion, torch.rand(2, 500), 20),
        Work("Rosenbrock Hessian n=1000, jacrev²", hessian_ours, two_jacrev, line, 15),
        Work("the same, beside func.hessian", hessian_ours, torch.func.hessian(rosenbrock), line, 15),
        jacobians("MLP 256-512-512-256, one row", mlp(256, 512, 512, 256), torch.randn(256)),
        jacobians("wide-narrow-wide 2000-5-2000", mlp(2000, 5, 2000), torch.randn(2000)),
        jacobians("narrow-wide 4-2000", mlp(4, 64, 2000), torch.randn(4)),
        jacobians("7-joint arm, 7 → 3", arm, torch.randn(7)),
        jacobians("spherical → Cartesian, 3 → 3", spherical, torch.randn(3)),
        jacobians("20 pointwise ops, n=7", twenty_ops, torch.randn(7)),
    ]


def agree(work: Work) -> None:
    """Raise unless both ways give the same Jacobian."""
    torch.testing.assert_close(work.ours(work.x), work.theirs(work.x), rtol=1e-9, atol=1e-9)


def measure(work: Work, seconds: float) -> Timed:
    """Let the two take turns for about so many seconds; at least seven turns each."""

    def turn(f: Function, calls: int) -> float:
        start = perf_counter()
        for _ in range(calls):
            f(work.x)
        return (perf_counter() - start) / calls

    functions = (work.theirs, work.ours)
    once = [min(turn(f, 1) for _ in range(3)) for f in functions]
    # A turn lasts at least two milliseconds, so that the clock and a single interruption do not decide it.
    calls = [max(1, round(0.002 / time)) for time in once]
    rounds = max(7, min(200, round(seconds / sum(n * time for n, time in zip(calls, once, strict=True)))))
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds):
        for which in (0, 1) if k % 2 else (1, 0):
            times[which].append(turn(functions[which], calls[which]))
    theirs, ours = median(times[0]), median(times[1])
    return Timed(work.name, work.ours(work.x).numel(), theirs, ours, theirs / ours, work.goal, rounds)


def machine() -> dict[str, Any]:
    """Where and with what the table was made."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dtype": "float64",
    }


def milliseconds(seconds: float) -> str:
    """Three figures."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds * 1e3:.0f} ms"


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status tells whether every goal was met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--only", default="", metavar="WORD", help="only rows whose name contains the word")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long to measure each row (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1, see above)")
    options = parser.parse_args(argv)

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(options.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'median time of a dense Jacobian':36}{'torch.func':>12}{'torchjac':>12}{'ratio':>8}{'goal':>8}")
    rows = []
    for work in works():
        if options.only.lower() not in work.name.lower():
            continue
        agree(work)
        row = measure(work, options.seconds)
        rows.append(row)
        print(
            f"{row.name:36}{milliseconds(row.theirs):>12}{milliseconds(row.ours):>12}{row.ratio:>7.3g}×"
            f"{f'≥ {row.goal:g}×':>8}{'' if row.ratio >= row.goal else '  missed'}",
            flush=True,
        )
    if options.json:
        data = {"machine": about, "rows": [row._asdict() for row in rows]}
        Path(options.json).write_text(json.dumps(data, indent=1))
    missed = [row.name for row in rows if row.ratio < row.goal]
    print("every goal met" if not missed else f"{len(missed)} of {len(rows)} goals missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
