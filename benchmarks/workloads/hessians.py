"""Second derivatives of scalar functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..workload import Array, Places, Workload, random, workload
from .pde import write


@workload({"n": 5}, {"n": 1000}, {"n": 1_000_000})
def rosenbrock(n: int) -> Workload:
    """The chained Rosenbrock function Σ 100 (xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)², whose Hessian has three diagonals."""

    def function(xp: Any, x: Array) -> Array:
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    def casadi(ca: Any, x: Any) -> Any:
        return ca.sum1(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def blocks(x: Tensor) -> tuple[Tensor, ...]:
        diagonal = torch.full_like(x, 202.0)
        diagonal[-1] = 200.0
        diagonal[:-1] += 1200 * x[:-1] ** 2 - 400 * x[1:]
        diagonal[0] -= 200.0
        beside = -400 * x[:-1]
        return diagonal, beside, beside

    def places() -> Places:
        i = np.arange(n)
        return Places(
            np.concatenate([i, i[1:], i[:-1]]),
            np.concatenate([i, i[:-1], i[1:]]),
            (n, n),
        )

    dense = n <= 20_000
    return Workload(
        f"Rosenbrock Hessian, n={n}",
        function,
        random().random(n) * 2 - 1,
        order=2,
        hand=write(places(), blocks, (n, n)) if dense else None,
        blocks=blocks,
        blocks_places=places,
        casadi=casadi if n <= 100_000 else None,
        dense=dense,
        compiled=n == 1000,
        goals=(("dense", "torch.func.jacrev", 1 / 15), ("dense", "torch.func.jacfwd", 1 / 15)),
    )


@workload({"k": 3, "n": 7, "d": 2}, {"k": 100, "n": 1000, "d": 8})
def kmeans(k: int, n: int, d: int) -> Workload:
    """The cost Σₙ minₖ |pₙ - cₖ|² of k centres; its Hessian is diagonal: twice how many points a centre has."""

    def function(xp: Any, centres: Array, points: Array) -> Array:
        squares = ((points[:, None] - centres[None]) ** 2).sum(-1)
        return xp.amin(squares, 1).sum()

    def blocks(centres: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        nearest = torch.cdist(points, centres).argmin(1)
        counts = torch.bincount(nearest, minlength=k).to(centres.dtype)
        return ((2 * counts)[:, None].expand(k, d),)

    def places() -> Places:
        return Places(np.arange(k * d), np.arange(k * d), (k * d, k * d))

    rng = random()
    return Workload(
        f"k-means Hessian, k={k} n={n} d={d}",
        function,
        rng.standard_normal((k, d)),
        (rng.standard_normal((n, d)),),
        order=2,
        hand=write(places(), blocks, (k, d, k, d)),
        blocks=blocks,
        blocks_places=places,
    )
