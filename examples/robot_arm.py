"""Inverse kinematics of a robot arm for a whole path at once, by one block-diagonal Jacobian.

    python examples/robot_arm.py --out robot_arm.png

A planar arm of six links is to follow a figure of eight. All points of the path are one batch: the function
that places the hand takes angles of shape (points, links), and its Jacobian is block-diagonal, one 2 × 6 matrix
for each point. Each step is damped least squares (Levenberg-Marquardt), the standard method for arms with more
joints than it needs (Buss, Introduction to Inverse Kinematics, 2004, eq. 11), for all points together:

    Δθ = Jᵀ (J Jᵀ + λ I)⁻¹ e

The check is geometry: joint k turns the hand around itself, so ∂hand/∂θ_k is the lever from joint k to the
hand, turned by a right angle.
"""

from __future__ import annotations

import argparse

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

import torchjac

LENGTHS = torch.tensor([1.0, 0.9, 0.8, 0.6, 0.4, 0.3], dtype=torch.float64)


def joints(angles: Tensor) -> Tensor:
    """Where the joints and at last the hand stand, (…, links + 1, 2), for the angle of each link to the one before."""
    heading = angles.cumsum(-1)
    links = LENGTHS[:, None] * torch.stack([heading.cos(), heading.sin()], -1)
    return torch.nn.functional.pad(links.cumsum(-2), (0, 0, 1, 0))


def hand(angles: Tensor) -> Tensor:
    """Where the hand stands, (…, 2)."""
    return joints(angles)[..., -1, :]


def path(points: int) -> Tensor:
    """A figure of eight within reach, (points, 2)."""
    t = torch.linspace(0, 2 * torch.pi, points + 1, dtype=torch.float64)[:-1]
    return torch.stack([1.6 * t.sin() + 1.2, 1.1 * (2 * t).sin() + 1.2], -1)


def inverse(targets: Tensor, damping: float = 1e-2, most: int = 100) -> tuple[Tensor, list[float]]:
    """The angles that bring the hand to each target, and the largest distance after each step."""
    angles = torch.full((targets.shape[0], LENGTHS.numel()), 0.3, dtype=torch.float64)
    distances = []
    for _ in range(most):
        at, jacobian = torchjac.value_and_jacobian(hand)(angles)
        error = targets - at
        distances.append(float(error.norm(dim=-1).max()))
        if distances[-1] < 1e-12:
            break
        J = jacobian.block_diagonal()
        # Damped where far away, hardly where close: the steps end as Newton's.
        weight = damping * error.square().sum(-1)[:, None, None] * torch.eye(2, dtype=torch.float64)
        angles = angles + (J.mT @ torch.linalg.solve(J @ J.mT + weight, error[..., None]))[..., 0]
    return angles, distances


def levers(angles: Tensor) -> Tensor:
    """∂hand/∂angles by geometry, (points, 2, links): the lever from each joint to the hand, a right angle on."""
    lever = hand(angles)[:, None] - joints(angles)[:, :-1]
    return torch.stack([-lever[..., 1], lever[..., 0]], 1)


def plot(out: str, targets: Tensor, angles: Tensor) -> None:
    """Draw some poses of the arm on its path, and where the nonzeros of the Jacobian stand."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    chain = joints(angles)
    shades = torch.linspace(0.15, 0.9, 12).tolist()
    for shade, pose in zip(shades, chain[:: max(1, len(chain) // 12)], strict=False):
        left.plot(*pose.T, "-o", color=colormaps["viridis"](shade), linewidth=1.5, markersize=3)
    closed = torch.cat([targets, targets[:1]])
    left.plot(*closed.T, "k--", linewidth=1, label="path")
    left.plot(0, 0, "ks", markersize=9, label="base")
    left.set_aspect("equal")
    left.set_title("twelve poses on the path")
    left.legend(loc="lower right")
    torchjac.jacobian(hand)(angles[:8]).spy(right)
    right.set_title("∂hand/∂angles of eight poses: one 2 × 6 block each")
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Solve, check, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="robot_arm.png", help="where to save the picture")
    parser.add_argument("--points", type=int, default=96, help="points of the path")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    targets = path(options.points)
    angles, distances = inverse(targets)
    jacobian = torchjac.jacobian(hand)(angles)
    print(jacobian)
    print(f"farthest from the path: {' → '.join(f'{d:.1e}' for d in (distances[0], *distances[-3:]))}")
    print(f"steps: {len(distances)}")
    difference = float((jacobian.block_diagonal() - levers(angles)).abs().max())
    print(f"largest difference from the levers of geometry: {difference:.1e}")
    plot(options.out, targets, angles)
    print(f"poses drawn in {options.out}")


if __name__ == "__main__":
    main()
