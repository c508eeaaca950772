"""Residuals of partial differential equations: stencils on a line and on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..workload import Array, Places, Workload, random, workload

A, B, ALPHA = 3.4, 1.0, 10.0


def write(places: Places, blocks: Any, shape: tuple[int, ...]) -> Any:
    """A dense answer from blocks: zeros, and each number put at its place."""
    index = torch.from_numpy(places.rows * places.shape[1] + places.columns)

    def hand(x: Tensor, *constants: Tensor) -> Tensor:
        out = torch.zeros(shape, dtype=x.dtype)
        out.view(-1)[index] = torch.cat([block.reshape(-1) for block in blocks(x, *constants)])
        return out

    return hand


@workload({"n": 8}, {"n": 1000}, {"n": 10_000})
def line(n: int) -> Workload:
    """The Brusselator on a line, u = 1 and v = 3 held at both ends; n unknowns, two at each point."""
    m = n // 2
    c = (m + 1) ** 2 / 50

    def function(xp: Any, state: Array, ends: Array) -> Array:
        u, v = state[0], state[1]

        def laplacian(w: Array, end: Array) -> Array:
            padded = xp.concatenate([end, w, end])
            return c * (padded[2:] - 2 * w + padded[:-2])

        reaction = u * u * v
        u_t = 1 + reaction - 4 * u + laplacian(u, ends[:1])
        v_t = 3 * u - reaction + laplacian(v, ends[1:])
        return xp.stack([u_t, v_t])

    def casadi(ca: Any, x: Any, ends: Any) -> Any:
        u, v = x[:m], x[m:]

        def laplacian(w: Any, end: float) -> Any:
            return c * (ca.vertcat(w[1:], end) - 2 * w + ca.vertcat(end, w[:-1]))

        reaction = u * u * v
        u_t = 1 + reaction - 4 * u + laplacian(u, ends[0])
        return ca.vertcat(u_t, 3 * u - reaction + laplacian(v, ends[1]))

    def blocks(state: Tensor, ends: Tensor) -> tuple[Tensor, ...]:
        u, v = state
        uv, uu = 2 * u * v, u * u
        beside = state.new_full((1,), c).expand(4 * (m - 1))
        return uv - (4 + 2 * c), uu, 3 - uv, -uu - 2 * c, beside

    def places() -> Places:
        u, v = np.arange(m), np.arange(m, n)
        rows = [u, u, v, v, u[1:], u[:-1], v[1:], v[:-1]]
        columns = [u, v, u, v, u[:-1], u[1:], v[:-1], v[1:]]
        return Places(np.concatenate(rows), np.concatenate(columns), (n, n))

    return Workload(
        f"reaction-diffusion 1-D, n={n}",
        function,
        random().random((2, m)),
        (np.array([1.0, 3.0]),),
        hand=write(places(), blocks, (2, m, 2, m)) if n <= 20_000 else None,
        blocks=blocks,
        blocks_places=places,
        casadi=casadi if n <= 100_000 else None,
        dense=n <= 20_000,
        compiled=n == 1000,
        goals=(("dense", "torch.func.jacrev", 1 / 20),),
    )


@workload({"n": 3}, {"n": 32}, {"n": 70}, {"n": 256})
def grid(n: int) -> Workload:
    """The Brusselator on an n × n periodic grid, the SciML benchmark problem, at t = 0."""
    c = ALPHA * (n - 1) ** 2
    points = n * n

    def function(xp: Any, state: Array) -> Array:
        u, v = state[0], state[1]

        def laplacian(w: Array) -> Array:
            beside = xp.roll(w, 1, 0) + xp.roll(w, -1, 0) + xp.roll(w, 1, 1) + xp.roll(w, -1, 1)
            return c * (beside - 4 * w)

        reaction = u**2 * v
        return xp.stack([B + reaction - (A + 1) * u + laplacian(u), A * u - reaction + laplacian(v)])

    def casadi(ca: Any, x: Any) -> Any:
        order = np.arange(points).reshape(n, n)
        around = [np.roll(order, s, d).reshape(-1).tolist() for s in (1, -1) for d in (0, 1)]

        def laplacian(w: Any) -> Any:
            return c * (sum(w[index] for index in around) - 4 * w)

        u, v = x[:points], x[points:]
        reaction = u**2 * v
        return ca.vertcat(B + reaction - (A + 1) * u + laplacian(u), A * u - reaction + laplacian(v))

    def blocks(state: Tensor) -> tuple[Tensor, ...]:
        u, v = state
        uv, uu = 2 * u * v, u * u
        beside = state.new_full((1,), c).expand(8 * points)
        return uv - (A + 1 + 4 * c), uu, A - uv, -uu - 4 * c, beside

    def places() -> Places:
        u, v = np.arange(points), np.arange(points, 2 * points)
        order = np.arange(points).reshape(n, n)
        around = [np.roll(order, s, d).reshape(-1) for s in (1, -1) for d in (0, 1)]
        rows = [u, u, v, v, *[u] * 4, *[v] * 4]
        columns = [u, v, u, v, *around, *[points + index for index in around]]
        return Places(np.concatenate(rows), np.concatenate(columns), (2 * points, 2 * points))

    rng = random()
    dense = n <= 100
    return Workload(
        f"Brusselator 2-D, {n}×{n}",
        function,
        rng.random((2, n, n)),
        hand=write(places(), blocks, (2, n, n, 2, n, n)) if dense else None,
        blocks=blocks,
        blocks_places=places,
        casadi=casadi if n <= 100 else None,
        dense=dense,
    )
