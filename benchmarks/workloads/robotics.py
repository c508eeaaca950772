"""A camera over many points, and a hand of 22 bones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..workload import Array, Workload, random, workload


def rotation(xp: Any, w: Array) -> Array:
    """The rotation matrix of an axis times an angle: Rodrigues' formula, I + sin θ K + (1 - cos θ) K²."""
    theta = xp.sqrt((w * w).sum())
    k = cross_matrix(xp, w / theta)
    return xp.eye(3, dtype=w.dtype) + xp.sin(theta) * k + (1 - xp.cos(theta)) * (k @ k)


def cross_matrix(xp: Any, w: Array) -> Array:
    """The matrix of v ↦ w × v."""
    zero = 0 * w[0]
    return xp.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3)


@workload({"points": 4}, {"points": 10_000})
def camera(points: int) -> Workload:
    """One camera's block of a bundle adjustment: its pose (6,) → where it sees the points, (points, 2)."""

    def function(xp: Any, pose: Array, world: Array) -> Array:
        seen = world @ rotation(xp, pose[:3]).T + pose[3:]
        return 500.0 * seen[:, :2] / seen[:, 2:]

    def hand(pose: Tensor, world: Tensor) -> Tensor:
        w = pose[:3]
        turned = world @ rotation(torch, w).T
        seen = turned + pose[3:]
        # d(R p)/dw = -[R p]× J, with the left Jacobian of SO(3).
        theta = w.norm()
        k = cross_matrix(torch, w / theta)
        left = torch.eye(3, dtype=w.dtype) + ((1 - theta.cos()) / theta) * k
        left = left + (1 - theta.sin() / theta) * (k @ k)
        scale = 500.0 / seen[:, 2]
        lens = seen.new_zeros(points, 2, 3)
        lens[:, 0, 0] = scale
        lens[:, 1, 1] = scale
        lens[:, :, 2] = -seen[:, :2] * (scale / seen[:, 2])[:, None]
        # The rows of lens times -[q]× are q × row.
        by_rotation = torch.linalg.cross(turned[:, None].expand_as(lens), lens) @ left
        return torch.cat([by_rotation, lens], 2)

    rng = random()
    world = rng.standard_normal((points, 3))
    world[:, 2] += 8
    return Workload(
        f"camera pose, {2 * points}×6",
        function,
        rng.standard_normal(6) / 5,
        (world,),
        hand=hand,
        structured=False,
    )


FINGERS, BONES = 5, 22


def parents() -> list[int]:
    """The skeleton: a root, a wrist, and five fingers of four bones on the wrist."""
    found = [-1, 0]
    for finger in range(FINGERS):
        first = 2 + 4 * finger
        found += [1, first, first + 1, first + 2]
    return found


@workload({"vertices": 4}, {"vertices": 800})
def hand_tracking(vertices: int) -> Workload:
    """ADBench's hand tracking, simple: 26 pose parameters → distances of `vertices` skinned points, by scalars.

    The program is written as in https://github.com/microsoft/ADBench (src/python/modules/PyTorch): matrices
    are filled entry by entry. The model is a random one of the same sizes.
    """

    def euler(xyz: Array) -> Array:
        x, y, z = torch.eye(3, dtype=xyz.dtype), torch.eye(3, dtype=xyz.dtype), torch.eye(3, dtype=xyz.dtype)
        c, s = torch.cos(xyz), torch.sin(xyz)
        x[1, 1], x[2, 1], x[1, 2], x[2, 2] = c[0], s[0], -s[0], c[0]
        y[0, 0], y[0, 2], y[2, 0], y[2, 2] = c[1], s[1], -s[1], c[1]
        z[0, 0], z[1, 0], z[0, 1], z[1, 1] = c[2], s[2], -s[2], c[2]
        return z @ y @ x

    def pose_of(theta: Array) -> Array:
        pose = torch.zeros(BONES + 3, 3, dtype=theta.dtype)
        pose[0], pose[1], pose[2] = theta[:3], 1.0, theta[3:6]
        k, row = 6, 5
        for _ in range(FINGERS):
            for joint in range(1, 4):
                pose[row, 0] = theta[k]
                k += 1
                if joint == 1:
                    pose[row, 1] = theta[k]
                    k += 1
                row += 1
            row += 1
        return pose

    def function(
        xp: Any, theta: Array, relatives: Array, inverses: Array, base: Array, w: Array, to: Array
    ) -> Array:
        pose = pose_of(theta)
        absolutes: list[Array] = []
        for bone, parent in enumerate(parents()):
            local = torch.eye(4, dtype=theta.dtype)
            local[:3, :3] = euler(pose[bone + 3])
            relative = relatives[bone] @ local
            absolutes.append(relative if parent < 0 else absolutes[parent] @ relative)
        position = torch.zeros(3, vertices, dtype=theta.dtype)
        for bone in range(BONES):
            position = position + (absolutes[bone] @ inverses[bone] @ base)[:3] * w[bone]
        position = rotation(torch, pose[0]) * pose[1][None] @ position + pose[2][:, None]
        return (to - position).T.reshape(-1)

    rng = random()
    base = rng.standard_normal((4, vertices))
    base[3] = 1
    weights = rng.random((BONES, vertices))
    frames = rng.standard_normal((2, BONES, 4, 4)) / 4
    frames[:, :, 3] = (0, 0, 0, 1)
    frames[:, :, range(3), range(3)] += 1
    return Workload(
        f"hand tracking, simple, {3 * vertices}×26",
        function,
        rng.standard_normal(26) / 5,
        (*frames, base, weights / weights.sum(0), rng.standard_normal((3, vertices))),
        jax=False,
        structured=False,
    )
