"""Arms, chains of poses, cameras, and the residuals of estimating poses."""

from __future__ import annotations

import torch
from torch import Tensor

from .call import Made, everyday


def cross_matrix(w: Tensor) -> Tensor:
    """The matrix of v ↦ w × v."""
    zero = torch.zeros_like(w[0])
    return torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3)


def rotation(w: Tensor) -> Tensor:
    """Rodrigues' formula."""
    angle = w.norm()
    k = cross_matrix(w / angle)
    return torch.eye(3) + angle.sin() * k + (1 - angle.cos()) * k @ k


@everyday(2, 7, 30)
def planar_arm(joints: int) -> Made:
    """The tip of an arm in the plane."""

    def f(q: Tensor) -> Tensor:
        angle = q.cumsum(0)
        return torch.stack([angle.cos().sum(), angle.sin().sum()])

    return f, torch.rand(joints)


@everyday(2, 7)
def arm_by_loop(joints: int) -> Made:
    """The same, written joint by joint, every joint told."""

    def f(q: Tensor) -> Tensor:
        angle, x, y, points = 0.0, 0.0, 0.0, []
        for joint in range(joints):
            angle = angle + q[joint]
            x, y = x + torch.cos(angle), y + torch.sin(angle)
            points += [x, y]
        return torch.stack(points)

    return f, torch.rand(joints)


@everyday(3, 7)
def spatial_arm(joints: int) -> Made:
    """The pose of an arm's tip by 4 × 4 matrices, an entry written at a time."""
    offsets = torch.eye(4) + torch.randn(joints, 4, 4) / 4

    def f(q: Tensor) -> Tensor:
        pose = torch.eye(4)
        for angle, offset in zip(q, offsets, strict=True):
            turn = torch.eye(4)
            turn[0, 0] = turn[1, 1] = angle.cos()
            turn[0, 1], turn[1, 0] = -angle.sin(), angle.sin()
            pose = pose @ offset @ turn
        return pose[:3, 3]

    return f, torch.rand(joints)


@everyday(2, 8)
def chain_of_twists(poses: int) -> Made:
    """A chain of rigid motions, each the exponential of a twist."""

    def f(twists: Tensor) -> Tensor:
        turned, moved = torch.eye(3), torch.zeros(3)
        for twist in twists:
            moved = turned @ twist[3:] + moved
            turned = turned @ rotation(twist[:3])
        return torch.cat([turned.flatten(), moved])

    return f, torch.rand(poses, 6)


@everyday(1, 20)
def rotate_by_quaternion(points: int) -> Made:
    """Points turned by one quaternion."""
    cloud = torch.randn(points, 3)

    def f(q: Tensor) -> Tensor:
        q = q / q.norm()
        axis = q[1:].expand_as(cloud)
        t = 2 * torch.linalg.cross(axis, cloud)
        return cloud + q[0] * t + torch.linalg.cross(axis, t)

    return f, torch.rand(4) + 0.1


@everyday()
def quaternion_product() -> Made:
    """Two quaternions, scalar code."""

    def f(x: Tensor) -> Tensor:
        a, b, c, d, e, g, h, i = x
        return torch.stack(
            [
                a * e - b * g - c * h - d * i,
                a * g + b * e + c * i - d * h,
                a * h - b * i + c * e + d * g,
                a * i + b * h - c * g + d * e,
            ]
        )

    return f, torch.rand(8)


@everyday(1, 10, 200)
def camera_pose(points: int) -> Made:
    """Where a camera sees points, by its pose."""
    world = torch.randn(points, 3) + torch.tensor([0.0, 0.0, 8.0])

    def f(pose: Tensor) -> Tensor:
        seen = world @ rotation(pose[:3]).T + pose[3:]
        return 500 * seen[:, :2] / seen[:, 2:]

    return f, torch.rand(6) / 5


@everyday((2, 6), (4, 40))
def bundle_adjustment(cameras: int, points: int) -> Made:
    """All residuals of cameras (a small turn and a shift) and points."""
    which, what = torch.arange(cameras).repeat_interleave(points), torch.arange(points).repeat(cameras)
    seen = torch.rand(cameras * points, 2)

    def f(x: Tensor) -> Tensor:
        pose, world = x[: 6 * cameras].reshape(-1, 6)[which], x[6 * cameras :].reshape(-1, 3)[what]
        local = world + torch.linalg.cross(pose[:, :3], world) + pose[:, 3:]
        return (local[:, :2] / (local[:, 2:] + 5) - seen).flatten()

    return f, torch.rand(6 * cameras + 3 * points)


@everyday(5, 40)
def pose_graph(poses: int) -> Made:
    """Residuals between poses in the plane, each with the next one."""
    measured = torch.rand(poses - 1, 3)

    def f(x: Tensor) -> Tensor:
        here, there = x[:-1], x[1:]
        cos, sin = here[:, 2].cos(), here[:, 2].sin()
        dx, dy = (there - here)[:, :2].unbind(1)
        turned = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx, there[:, 2] - here[:, 2]], 1)
        return turned - measured

    return f, torch.rand(poses, 3)


@everyday(20, 300)
def point_to_plane(points: int) -> Made:
    """The residuals of aligning two scans."""
    source, target, normal = torch.randn(3, points, 3)

    def f(pose: Tensor) -> Tensor:
        return ((source @ rotation(pose[:3]).T + pose[3:] - target) * normal).sum(1)

    return f, torch.rand(6)


@everyday()
def arm_dynamics() -> Made:
    """Accelerations of an arm of two links, by its mass matrix."""

    def f(s: Tensor) -> Tensor:
        q, v = s[:2], s[2:]
        cos, sin = q[1].cos(), q[1].sin()
        coupled = 1 + cos
        mass = torch.stack([torch.stack([3 + 2 * cos, coupled]), torch.stack([coupled, torch.ones(())])])
        force = torch.stack([sin * v[1] * (2 * v[0] + v[1]), -sin * v[0] ** 2])
        return torch.cat([v, torch.linalg.solve(mass, force)])

    return f, torch.rand(4) + 0.5


@everyday(3, 12, order=2)
def arm_energy(joints: int) -> Made:
    """The Hessian of the squared distance of the tip to a target."""

    def f(q: Tensor) -> Tensor:
        angle = q.cumsum(0)
        tip = torch.stack([angle.cos().sum(), angle.sin().sum()])
        return (tip - 1).square().sum() + 0.1 * q.square().sum()

    return f, torch.rand(joints)
