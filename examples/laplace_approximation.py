"""Laplace's approximation of a small network: error bars from its Gauss-Newton matrix.

    python examples/laplace_approximation.py --out laplace_approximation.png

A network of 37 weights is fitted to noisy samples of a curve with a gap in them. Around the fit the posterior
of the weights is taken for a Gaussian whose precision is the generalised Gauss-Newton matrix plus that of the
prior (MacKay, A Practical Bayesian Framework for Backpropagation Networks, 1992; Immer, Korzepa & Bauer,
Improving predictions of Bayesian neural nets via local linearization, 2021):

    Λ = Jᵀ J / σ² + α I        var f(x) = J(x) Λ⁻¹ J(x)ᵀ        log evidence, to choose α and σ²

`J.gram()` is JᵀJ, `J.matmat` multiplies with J. Checks: a model that is linear in its weights, for which the
approximation is exact, against the closed forms of Bayesian linear regression; and for the network the identity
Hessian = Gauss-Newton matrix + residuals times second derivatives.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import torchjac

HIDDEN = 12
Model = Callable[[Tensor, Tensor], Tensor]


def network(weights: Tensor, x: Tensor) -> Tensor:
    """The network out · tanh(in x + shift) + bias, for x of shape (n,)."""
    into, shift, out = weights[: 3 * HIDDEN].view(3, HIDDEN)
    return (x[:, None] * into + shift).tanh() @ out + weights[3 * HIDDEN]


def cubic(weights: Tensor, x: Tensor) -> Tensor:
    """A polynomial of degree three: linear in its weights."""
    return torch.stack([x**k for k in range(4)], -1) @ weights


def samples(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples: x in two groups with a gap between them, y = sin 2x + noise of deviation 0.1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat([torch.linspace(-2, -0.6, n // 2), torch.linspace(0.7, 2, n - n // 2)]).double()
    return x, (2 * x).sin() + 0.1 * torch.randn(n, dtype=torch.float64, generator=generator)


class Fit(NamedTuple):
    """The best weights, precision of the prior, variance of the noise, and the posterior's precision matrix."""

    weights: Tensor
    prior: float
    noise: float
    precision: Tensor


def fit(model: Model, weights: Tensor, x: Tensor, y: Tensor, prior: float, noise: float) -> Fit:
    """The most probable weights, by Levenberg-Marquardt."""
    identity, damping = torch.eye(len(weights), dtype=torch.float64), 1.0
    for _ in range(300):
        value, J = torchjac.value_and_jacobian(model)(weights, x)
        gradient = (value - y) @ J / noise + prior * weights
        precision = J.gram().to_dense() / noise + prior * identity
        change = torch.linalg.solve(precision + damping * identity, gradient)
        if float(gradient @ change) < 1e-6:  # what there is to gain, in nats
            break
        moved = weights - change
        better = loss(moved, model, x, y, prior, noise) <= loss(weights, model, x, y, prior, noise)
        weights, damping = (moved, damping / 4) if better else (weights, damping * 8)
    J = torchjac.jacobian(model)(weights, x)
    return Fit(weights, prior, noise, J.gram().to_dense() / noise + prior * identity)


def loss(weights: Tensor, model: Model, x: Tensor, y: Tensor, prior: float, noise: float) -> Tensor:
    """Minus the logarithm of likelihood times prior, constants left out."""
    return (model(weights, x) - y).square().sum() / (2 * noise) + prior * weights.square().sum() / 2


def log_evidence(found: Fit, model: Model, x: Tensor, y: Tensor) -> float:
    """The logarithm of p(y), the weights integrated out."""
    count = len(found.weights)
    constants = count * log(found.prior) - len(x) * log(2 * pi * found.noise)
    left = loss(found.weights, model, x, y, found.prior, found.noise)
    return float(-left - torch.linalg.slogdet(found.precision).logabsdet / 2) + constants / 2


def tuned(model: Model, weights: Tensor, x: Tensor, y: Tensor, rounds: int) -> Fit:
    """Prior and noise that make the samples most probable, by MacKay's fixed point (1992, eq. 2.27 and 2.28)."""
    found = fit(model, weights, x, y, prior=0.1, noise=0.05)
    for _ in range(rounds):
        determined = len(weights) - found.prior * float(torch.linalg.inv(found.precision).trace())
        prior = determined / float(found.weights.square().sum())
        noise = float((model(found.weights, x) - y).square().sum()) / (len(x) - determined)
        found = fit(model, found.weights, x, y, prior, noise)
    return found


def variance(found: Fit, model: Model, x: Tensor) -> Tensor:
    """The variance of the function at some points: the diagonal of J Λ⁻¹ Jᵀ."""
    J = torchjac.jacobian(model)(found.weights, x)
    root = torch.linalg.cholesky(torch.linalg.inv(found.precision))
    return J.matmat(root).square().sum(-1)


def of_a_linear_model(x: Tensor, y: Tensor) -> tuple[float, float]:
    """How far evidence and variance of the cubic are from the closed forms: y ~ N(0, σ² I + X Xᵀ / α)."""
    prior, noise = 0.5, 0.02
    found = fit(cubic, torch.zeros(4, dtype=torch.float64), x, y, prior, noise)
    X = torch.stack([x**k for k in range(4)], -1)
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros_like(y), noise * torch.eye(len(x), dtype=torch.float64) + X @ X.T / prior
    )
    covariance = X @ X.T / prior
    exact = covariance - covariance @ torch.linalg.solve(marginal.covariance_matrix, covariance)
    evidence = abs(log_evidence(found, cubic, x, y) - float(marginal.log_prob(y)))
    return evidence, float((variance(found, cubic, x) - exact.diagonal()).abs().max())


def hessian_splits(found: Fit, x: Tensor, y: Tensor) -> float:
    """The Hessian of the loss less Λ and less Σ residual · second derivatives, which is nothing."""
    full = torchjac.hessian(loss)(found.weights, network, x, y, found.prior, found.noise)
    left = (network(found.weights, x) - y) / found.noise
    curved = torchjac.hessian(lambda weights: (left * network(weights, x)).sum())(found.weights)
    return float((full - found.precision - curved).abs().max() / full.abs().max())


def plot(out: str, found: Fit, x: Tensor, y: Tensor) -> None:
    """Draw the fit with its error bars, and the posterior's precision matrix."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    line = torch.linspace(-3, 3, 300, dtype=torch.float64)
    mean, of_function = network(found.weights, line), variance(found, network, line)
    for spread, shade, label in (
        ((of_function + found.noise).sqrt(), 0.15, "± 2 σ of a sample"),
        (of_function.sqrt(), 0.3, "± 2 σ of the curve"),
    ):
        left.fill_between(
            line, mean - 2 * spread, mean + 2 * spread, color="C0", alpha=shade, linewidth=0, label=label
        )
    left.plot(line, (2 * line).sin(), "k--", linewidth=1, label="sin 2x")
    left.plot(line, mean, "C0", label="fit")
    left.plot(x, y, "k.", label="samples")
    left.set_ylim(-3, 3)
    left.legend(loc="upper center", ncols=3)
    image = right.imshow(found.precision.abs().log10(), cmap="viridis")
    right.set_title("posterior precision, log₁₀ of each entry")
    figure.colorbar(image, ax=right)
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Check, fit, choose prior and noise, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="laplace_approximation.png", help="where to save the picture")
    parser.add_argument("--samples", type=int, default=60, help="how many samples")
    parser.add_argument("--rounds", type=int, default=8, help="rounds of choosing prior and noise")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    x, y = samples(options.samples)
    evidence, spread = of_a_linear_model(x, y)
    print(f"a linear model against its closed forms: {evidence:.1e} (log evidence), {spread:.1e} (variance)")
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3 * HIDDEN + 1, dtype=torch.float64, generator=generator)
    found = tuned(network, weights, x, y, options.rounds)
    print(f"Hessian less Gauss-Newton matrix less curvature, relative: {hessian_splits(found, x, y):.1e}")
    print(
        f"log evidence {log_evidence(found, network, x, y):.2f}, noise found {found.noise**0.5:.3f} (true 0.1)"
    )
    inside, gap = variance(found, network, x).sqrt().mean(), variance(found, network, x.new_zeros(1)).sqrt()
    print(f"σ of the curve: {float(inside):.3f} at the samples, {float(gap):.3f} in the gap")
    plot(options.out, found, x, y)
    print(f"fit and error bars drawn in {options.out}")


if __name__ == "__main__":
    main()
