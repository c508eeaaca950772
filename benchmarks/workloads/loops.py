"""Loops of many small Jacobians, which punish any analysis made for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..workload import Array, Workload, random, workload

DT = 0.1


def motion(xp: Any, state: Array) -> Array:
    """A unicycle: position, heading and speed (4,) one time step later."""
    x, y, heading, speed = state
    return xp.stack([x + DT * speed * xp.cos(heading), y + DT * speed * xp.sin(heading), heading, speed])


def sight(xp: Any, state: Array) -> Array:
    """What a beacon at the origin measures: range and bearing."""
    return xp.stack([xp.sqrt(state[0] ** 2 + state[1] ** 2), xp.arctan2(state[1], state[0]) - state[2]])


def both(xp: Any, state: Array) -> Array:
    """Motion and measurement in one output (6,), so that a filter's step needs one Jacobian."""
    return xp.concatenate([motion(xp, state), sight(xp, state)])


def hand_both(state: Tensor) -> Tensor:
    """The Jacobian of `both`, written out."""
    x, y, heading, speed = state
    c, s = DT * heading.cos(), DT * heading.sin()
    zero, one = state.new_zeros(()), state.new_ones(())
    squared = x * x + y * y
    r = squared.sqrt()
    rows = [
        *(one, zero, -speed * s, c),
        *(zero, one, speed * c, s),
        *(zero, zero, one, zero),
        *(zero, zero, zero, one),
        *(x / r, y / r, zero, zero),
        *(-y / squared, x / squared, -one, zero),
    ]
    return torch.stack(rows).view(6, 4)


def filter_with(jacobian: Callable[[Tensor], Tensor], state: Tensor, measured: Tensor) -> Tensor:
    """An extended Kalman filter over all measurements; gives the last covariance (4, 4)."""
    p = eye = torch.eye(4, dtype=state.dtype)
    noise = 0.01 * torch.eye(2, dtype=state.dtype)
    for z in measured:
        j = jacobian(state)
        out = both(torch, state)
        f, h = j[:4], j[4:]
        state = out[:4]
        p = f @ p @ f.T + 0.001 * eye
        gain = torch.linalg.solve(h @ p @ h.T + noise, h @ p).T
        state = state + gain @ (z - out[4:])
        p = p - gain @ h @ p
    return p


@workload({"steps": 3}, {"steps": 500})
def kalman(steps: int) -> Workload:
    """Steps of an extended Kalman filter: a Jacobian (6, 4) each."""

    def transform(jac: Callable[..., Any], g: Callable[..., Any]) -> Callable[..., Any]:
        # The measurements are no argument of the function that is differentiated.
        jacobian = jac(lambda state: g(state))
        return lambda state, measured: filter_with(jacobian, state, measured)

    rng = random()
    angles = np.linspace(0, 1, steps)
    seen = np.stack([2 + angles, angles - 0.5], 1) + rng.standard_normal((steps, 2)) / 100
    return Workload(
        f"Kalman filter, {steps} steps",
        lambda xp, state, *_: both(xp, state),
        np.array([2.0, 1.0, 0.3, 0.5]),
        (seen,),
        transform=transform,
        hand=lambda state, measured: filter_with(hand_both, state, measured),
        jax=False,
        structured=False,
        calls=steps,
    )


@workload({"n": 4, "m": 5}, {"n": 1000, "m": 50})
def gauss_newton(n: int, m: int) -> Workload:
    """JᵀJ column by column: that of eⱼ is the Jacobian of x ↦ r(x)·(J eⱼ), one small call for each of n."""

    def residual(xp: Any, x: Array, w: Array) -> Array:
        return xp.tanh(w @ x) ** 2

    def transform(jac: Callable[..., Any], g: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Tensor, w: Tensor) -> Tensor:
            h = torch.tanh(w @ x)
            columns = ((2 * h * (1 - h * h))[:, None] * w).T
            return torch.stack([jac(lambda y, c=c: g(y, w) @ c)(x) for c in columns])

        return run

    def hand(x: Tensor, w: Tensor) -> Tensor:
        h = torch.tanh(w @ x)
        j = (2 * h * (1 - h * h))[:, None] * w
        return j.T @ j

    rng = random()
    return Workload(
        f"Gauss-Newton matrix, {n} columns",
        residual,
        rng.standard_normal(n),
        (rng.standard_normal((m, n)) / n**0.5,),
        transform=transform,
        hand=hand,
        jax=False,
        structured=False,
        calls=n,
    )
