"""Tiny functions, where what a call costs by itself is all that counts."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import torch
from torch import Tensor

from ..workload import Array, Workload, random, workload

# Franka Emika Panda, modified Denavit-Hartenberg (Craig): a, d, alpha of each of the seven joints.
# https://frankaemika.github.io/docs/control_parameters.html
PANDA = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -pi / 2),
    (0.0, 0.316, pi / 2),
    (0.0825, 0.0, pi / 2),
    (-0.0825, 0.384, -pi / 2),
    (0.0, 0.0, pi / 2),
    (0.088, 0.107, pi / 2),
)


def position(sines: Any, cosines: Any) -> tuple[Any, Any, Any]:
    """The flange's position from the joints' sines and cosines, joint by joint from the last."""
    x, y, z = 0.0, 0.0, 0.0
    for k in reversed(range(7)):
        a, d, alpha = PANDA[k]
        x, y = cosines[k] * x - sines[k] * y, sines[k] * x + cosines[k] * y
        z = z + d
        x, y, z = x + a, cos(alpha) * y - sin(alpha) * z, sin(alpha) * y + cos(alpha) * z
    return x, y, z


def hand_arm(angles: Tensor) -> Tensor:
    """The geometric Jacobian: the column of joint k is zₖ × (p - oₖ), in frames multiplied up one by one."""
    dtype = angles.dtype
    s, c = torch.sin(angles), torch.cos(angles)
    sa = angles.new_tensor([sin(alpha) for _, _, alpha in PANDA])
    ca = angles.new_tensor([cos(alpha) for _, _, alpha in PANDA])
    a = angles.new_tensor([a for a, _, _ in PANDA])
    d = angles.new_tensor([d for _, d, _ in PANDA])
    zero = torch.zeros(7, dtype=dtype)
    rows = [c, -s, zero, a, ca * s, ca * c, -sa, -sa * d, sa * s, sa * c, ca, ca * d]
    steps = torch.stack(rows, 1).view(7, 3, 4)
    steps = torch.cat([steps, angles.new_tensor([[[0.0, 0.0, 0.0, 1.0]]]).expand(7, 1, 4)], 1)
    frame = steps[0]
    frames = [frame]
    for step in steps[1:]:
        frame = frame @ step
        frames.append(frame)
    stacked = torch.stack(frames)
    origins, axes = stacked[:, :3, 3], stacked[:, :3, 2]
    return torch.linalg.cross(axes, origins[-1] - origins).T


@workload({})
def arm() -> Workload:
    """Forward kinematics of a seven-joint arm: joint angles (7,) → position of the flange (3,)."""

    def casadi(ca: Any, x: Any) -> Any:
        return ca.vertcat(*position(ca.sin(x).elements(), ca.cos(x).elements()))

    return Workload(
        "7-joint arm, 7→3",
        lambda xp, x: xp.stack(position(xp.sin(x), xp.cos(x))),
        random().standard_normal(7),
        hand=hand_arm,
        casadi=casadi,
        structured=False,
        tiny=True,
        compiled=True,
    )


@workload({})
def spherical() -> Workload:
    """Spherical to Cartesian coordinates."""

    def function(xp: Any, x: Array) -> Array:
        r, theta, phi = x
        return xp.stack([r * xp.sin(theta) * xp.cos(phi), r * xp.sin(theta) * xp.sin(phi), r * xp.cos(theta)])

    def hand(x: Tensor) -> Tensor:
        (_, st, sp), (_, ct, cp) = x.sin(), x.cos()
        r, zero = x[0], x.new_zeros(())
        entries = [st * cp, r * ct * cp, -r * st * sp, st * sp, r * ct * sp, r * st * cp, ct, -r * st, zero]
        return torch.stack(entries).view(3, 3)

    return Workload(
        "spherical → Cartesian, 3→3",
        function,
        random().standard_normal(3),
        hand=hand,
        structured=False,
        tiny=True,
        compiled=True,
    )


@workload({"n": 7}, {"n": 7})
def twenty_ops(n: int) -> Workload:
    """Twenty pointwise ops one after another."""

    def function(xp: Any, x: Array) -> Array:
        for _ in range(5):
            x = xp.tanh(xp.sin(x) * 1.1 + 0.1)
        return x

    def hand(x: Tensor) -> Tensor:
        slope = 1.1**5
        for _ in range(5):
            slope = slope * x.cos()
            x = torch.tanh(x.sin() * 1.1 + 0.1)
            slope = slope * (1 - x * x)
        return torch.diag(slope)

    return Workload(
        f"20 pointwise ops, n={n}",
        function,
        random().standard_normal(n),
        hand=hand,
        casadi=lambda ca, x: function(ca, x),
        structured=False,
        tiny=True,
        compiled=True,
    )
