"""A physics-informed network for Poisson's equation, trained by Gauss-Newton through its Laplacian.

    python examples/pinn_laplacian.py --out pinn_laplacian.png

    −Δu = 2π² sin πx sin πy on the unit square, u = 0 on its border; the solution is u = sin πx sin πy

u(x) = x(1−x)y(1−y) · network(x), so the border is met. Each collocation point has a Hessian of its own: over a
batch of points the Jacobian of the gradient is block-diagonal, one 2 × 2 matrix for each point, and its traces
are the Laplacians. They are differentiable again, so the residuals have a Jacobian with respect to the weights,
and training is least squares (Levenberg-Marquardt; Müller & Zeinhofer, Achieving High Accuracy with PINNs via
Energy Natural Gradients, 2023, on why second order matters here).

Checks: the Laplacian of a network of one layer by its closed formula, the error against the solution.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

import torchjac

WIDTH = 24


def first_weights(seed: int = 0) -> Tensor:
    """All weights in one vector: in (2, WIDTH), shift (WIDTH), out (WIDTH)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4 * WIDTH, dtype=torch.float64, generator=generator)


def network(weights: Tensor, points: Tensor) -> Tensor:
    """The network out · tanh(points @ in + shift), for points of shape (n, 2)."""
    into, shift, out = (
        weights[: 2 * WIDTH].view(2, WIDTH),
        weights[2 * WIDTH : 3 * WIDTH],
        weights[3 * WIDTH :],
    )
    return (points @ into + shift).tanh() @ out


def solution(weights: Tensor, points: Tensor) -> Tensor:
    """The network, forced to zero on the border."""
    x, y = points.unbind(-1)
    return x * (1 - x) * y * (1 - y) * network(weights, points)


def laplacian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Δ of a function at each of some points (n, 2), which it treats apart: the traces of n Hessians."""
    gradient = torchjac.jacrev(lambda points: function(points).sum())
    hessians = torchjac.jacobian(gradient)(points).block_diagonal()
    return hessians.diagonal(dim1=-2, dim2=-1).sum(-1)


def by_formula(weights: Tensor, points: Tensor) -> Tensor:
    """Δ of the network by hand: Σₖ outₖ |inₖ|² tanh″(zₖ), tanh″ = −2 tanh (1 − tanh²)."""
    into, shift, out = (
        weights[: 2 * WIDTH].view(2, WIDTH),
        weights[2 * WIDTH : 3 * WIDTH],
        weights[3 * WIDTH :],
    )
    t = (points @ into + shift).tanh()
    return (-2 * t * (1 - t**2)) @ (out * into.square().sum(0))


def exact(points: Tensor) -> Tensor:
    """The solution, sin πx sin πy."""
    return (torch.pi * points).sin().prod(-1)


def residuals(weights: Tensor, points: Tensor) -> Tensor:
    """Δu + f at each point, divided by √n so that their squares sum to a mean."""
    found = laplacian(lambda points: solution(weights, points), points)
    return (found + 2 * torch.pi**2 * exact(points)) / len(points) ** 0.5


def train(weights: Tensor, points: Tensor, steps: int) -> tuple[Tensor, list[float]]:
    """Levenberg-Marquardt on the residuals: the weights, and the loss after each step."""
    damping, losses = 1.0, []
    left, jacobian = torchjac.value_and_jacobian(residuals)(weights, points)
    for _ in range(steps):
        losses.append(float(left.square().sum()))
        J = jacobian.to_dense()
        while damping < 1e12:
            matrix = torch.cat([J, damping**0.5 * torch.eye(len(weights), dtype=J.dtype)])
            right = torch.cat([left, torch.zeros_like(weights)])
            moved = weights - torch.linalg.lstsq(matrix, right[:, None]).solution[:, 0]
            if float(residuals(moved, points).square().sum()) < losses[-1]:
                break
            damping *= 4
        else:
            break
        weights, damping = moved, damping / 5
        left, jacobian = torchjac.value_and_jacobian(residuals)(weights, points)
    return weights, losses


def grid(n: int) -> Tensor:
    """Midpoints of n × n cells of the unit square, (n², 2)."""
    line = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.cartesian_prod(line, line)


def plot(out: str, weights: Tensor, losses: list[float]) -> None:
    """Draw the loss, the solution found and its error."""
    n = 80
    found, true = solution(weights, grid(n)), exact(grid(n))
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.semilogy(losses)
    left.set(xlabel="Gauss-Newton step", ylabel="mean squared residual")
    for axes, field, title, shades in (
        (middle, found, "u found", "viridis"),
        (right, found - true, "u found − u", "RdBu_r"),
    ):
        most = float(field.abs().max())
        low = 0.0 if shades == "viridis" else -most
        image = axes.imshow(
            field.view(n, n).T, origin="lower", extent=(0, 1, 0, 1), cmap=shades, vmin=low, vmax=most
        )
        axes.set_title(title)
        figure.colorbar(image, ax=axes)
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Check the Laplacian, train, compare with the solution, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="pinn_laplacian.png", help="where to save the picture")
    parser.add_argument("--points", type=int, default=12, help="collocation points along a side")
    parser.add_argument("--steps", type=int, default=25, help="Gauss-Newton steps at most")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    weights, points = first_weights(), grid(options.points)
    found = laplacian(lambda points: network(weights, points), points)
    print(torchjac.jacobian(torchjac.jacrev(lambda points: solution(weights, points).sum()))(points))
    print(
        f"Laplacian of the network against its formula: {float((found - by_formula(weights, points)).abs().max()):.1e}"
    )
    weights, losses = train(weights, points, options.steps)
    print(f"mean squared residual: {losses[0]:.1e} → {losses[-1]:.1e} in {len(losses)} steps")
    finer = grid(3 * options.points + 1)
    error = (solution(weights, finer) - exact(finer)).norm() / exact(finer).norm()
    print(f"relative error of the solution: {float(error):.1e}")
    plot(options.out, weights, losses)
    print(f"solution and error drawn in {options.out}")


if __name__ == "__main__":
    main()
