"""Newton steps on classic test problems with a million unknowns.

    python examples/million_unknowns.py             n = 1,000,000
    python examples/million_unknowns.py --n 1000    fewer

Both are from Moré, Garbow & Hillstrom, Testing Unconstrained Optimization Software, ACM TOMS 7 (1981):

    extended Rosenbrock (21)    minimise Σ 100 (x₂ᵢ - x₂ᵢ₋₁²)² + (1 - x₂ᵢ₋₁)²
    Broyden tridiagonal (30)    solve (3 - 2 xᵢ) xᵢ - xᵢ₋₁ - 2 xᵢ₊₁ + 1 = 0,  x₀ = xₙ₊₁ = 0

The Hessian of the first is made of n/2 blocks of 2 × 2, the Jacobian of the second of three diagonals. Dense,
each would take 8 TB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

import torchjac


def rosenbrock(x: Tensor) -> Tensor:
    """The extended Rosenbrock function, whose minimum is 0 at ones; it starts at (-1.2, 1, -1.2, 1, …)."""
    odd, even = x[::2], x[1::2]
    return (100 * (even - odd**2) ** 2 + (1 - odd) ** 2).sum()


def broyden(x: Tensor) -> Tensor:
    """The Broyden tridiagonal function, which starts at -1."""
    beyond = torch.nn.functional.pad(x, (1, 1))
    return (3 - 2 * x) * x - beyond[:-2] - 2 * beyond[2:] + 1


def newton(name: str, function: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    """Newton's method for function(x) = 0, printing what each step finds."""
    for step in range(steps):
        begin = perf_counter()
        value, J = torchjac.value_and_jacobian(function)(x)
        found = perf_counter()
        x = x - J.solve(value)
        if step == 0:
            print(f"{name}: {J}, kind {J.kind}")
        print(
            f"  step {step + 1}: largest residual {float(value.abs().max()):.1e}, "
            f"Jacobian in {found - begin:.2f} s, solved in {perf_counter() - found:.2f} s",
            flush=True,
        )
    print(f"  largest residual in the end: {float(function(x).abs().max()):.1e}")
    return x


def main(argv: list[str] | None = None) -> None:
    """Minimise the one and solve the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="unknowns, an even number")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)

    start = torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(options.n // 2)
    x = newton("extended Rosenbrock, gradient", torchjac.grad(rosenbrock), start, steps=6)
    print(f"  largest distance from the minimum at ones: {float((x - 1).abs().max()):.1e}")
    newton("Broyden tridiagonal", broyden, -torch.ones(options.n, dtype=torch.float64), steps=5)


if __name__ == "__main__":
    main()
