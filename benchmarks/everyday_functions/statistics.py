"""Likelihoods, their Hessians, Gaussian processes, and least squares."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .call import Made, everyday


@everyday(10, 60, order=2)
def marginal_likelihood(points: int) -> Made:
    """The Hessian of a Gaussian process's likelihood by its three hyperparameters."""
    x, y = torch.linspace(0, 1, points), torch.randn(points)
    apart = (x[:, None] - x).square()

    def f(h: Tensor) -> Tensor:
        length, scale, noise = h.exp()
        kernel = scale * torch.exp(-apart / (2 * length**2)) + (noise + 0.1) * torch.eye(points)
        lower = torch.linalg.cholesky(kernel)
        white = torch.linalg.solve_triangular(lower, y[:, None], upper=False)
        return white.square().sum() / 2 + lower.diagonal().log().sum()

    return f, torch.rand(3) - 1


@everyday((5, 2), (40, 10))
def posterior_mean(points: int, queries: int) -> Made:
    """A Gaussian process's posterior mean where it is asked."""
    data, weight = torch.randn(points, 3), torch.randn(points)

    def f(x: Tensor) -> Tensor:
        return torch.exp(-(x[:, None] - data).square().sum(-1) / 2) @ weight

    return f, torch.randn(queries, 3)


@everyday((30, 4), (500, 20), order=2)
def logistic_regression(samples: int, n: int) -> Made:
    """The Hessian of the loss by the weights."""
    x, y = torch.randn(samples, n), torch.randint(2, (samples,)).to(torch.get_default_dtype())
    return lambda w: F.binary_cross_entropy_with_logits(x @ w, y), torch.randn(n)


@everyday((30, 4), (500, 20), order=2)
def poisson_regression(samples: int, n: int) -> Made:
    """The Hessian of the likelihood by the weights."""
    x, y = torch.randn(samples, n) / n, torch.randint(5, (samples,)).to(torch.get_default_dtype())

    def f(w: Tensor) -> Tensor:
        rate = x @ w
        return (rate.exp() - y * rate).sum()

    return f, torch.randn(n)


@everyday((4, 3), (32, 10), order=2)
def cross_entropy_by_logits(batch: int, classes: int) -> Made:
    """The Hessian of cross-entropy by the logits."""
    target = torch.randint(classes, (batch,))
    return lambda logits: F.cross_entropy(logits, target), torch.randn(batch, classes)


@everyday((20, 3), (100, 8), order=2)
def softmax_regression(samples: int, n: int) -> Made:
    """The Hessian of cross-entropy by the weights of a linear classifier of three classes."""
    x, target = torch.randn(samples, n), torch.randint(3, (samples,))
    return lambda w: F.cross_entropy(x @ w, target), torch.randn(n, 3)


@everyday(2, 10, 100, order=2)
def rosenbrock(n: int) -> Made:
    """The Hessian of Rosenbrock's function."""
    return lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(), torch.rand(n)


@everyday(5, 50, order=2)
def log_sum_exp(n: int) -> Made:
    """The Hessian of a smooth maximum of linear functions."""
    a, b = torch.randn(2 * n, n), torch.randn(2 * n)
    return lambda x: (a @ x + b).logsumexp(0), torch.randn(n)


@everyday((50, 2), (400, 4), order=2)
def mixture_likelihood(samples: int, parts: int) -> Made:
    """The Hessian of a mixture's likelihood by weights, means and spreads."""
    data = torch.randn(samples, 1)

    def f(p: Tensor) -> Tensor:
        weights, means, spreads = p.chunk(3)
        each = -((data - means) ** 2) / (2 * spreads.exp() ** 2) - spreads + weights.log_softmax(0)
        return -each.logsumexp(1).sum()

    return f, torch.rand(3 * parts)


@everyday((20,), (500,))
def curve_fit(points: int) -> Made:
    """The residuals of a damped wave by its four parameters."""
    t, y = torch.linspace(0, 3, points), torch.randn(points)

    def f(p: Tensor) -> Tensor:
        size, rate, frequency, phase = p
        return size * torch.exp(-rate * t) * torch.sin(frequency * t + phase) - y

    return f, torch.rand(4)


@everyday((20,), (300,))
def student_scores(points: int) -> Made:
    """Student's log density of each point, by freedom, place and scale."""
    data = torch.randn(points)

    def f(p: Tensor) -> Tensor:
        freedom, place, scale = p[0].exp(), p[1], p[2].exp()
        apart = (data - place) / scale
        start = torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - scale.log() - freedom.log() / 2
        return start - (freedom + 1) / 2 * torch.log1p(apart**2 / freedom)

    return f, torch.rand(3)


@everyday((5, 4), (30, 20))
def factorisation(rows: int, columns: int) -> Made:
    """The residuals of a matrix of rank three, by both its factors."""
    entries = torch.randn(rows, columns)

    def f(p: dict[str, Tensor]) -> Tensor:
        return p["left"] @ p["right"].T - entries

    return f, {"left": torch.randn(rows, 3), "right": torch.randn(columns, 3)}


@everyday(5, 100)
def softmax_of_scores(n: int) -> Made:
    """Probabilities by scores at a temperature."""
    return lambda x: torch.softmax(x / 0.7, 0), torch.randn(n)
