"""Bundle adjustment: a sparse Jacobian through gather, and damped Gauss-Newton steps with its Gram matrix.

    python examples/bundle_adjustment.py                        20,000 observations
    python examples/bundle_adjustment.py --observations 2000    fewer

The objective is BA of ADBench (https://github.com/microsoft/ADBench): cameras of eleven parameters see points of
three coordinates, and each observation has a weight w. Its residuals are w times the reprojection error, two
numbers, and 1 - w². A row of the first kind depends on ten parameters of one camera (each coordinate has a
principal point of its own), on one point and on one weight: 14 entries; of the second kind on one.

    J = ∂residual/∂(weights, points, cameras),    (JᵀJ + λ diag JᵀJ) step = -Jᵀ residual

The unknowns stand in the order in which they are best eliminated: weights, which meet no other weight, then
points, then the few cameras.
"""

from __future__ import annotations

import argparse
from functools import partial
from time import perf_counter
from typing import NamedTuple

import torch
from scipy.sparse import diags_array
from scipy.sparse.linalg import splu
from torch import Tensor

import torchjac


def rotate(angles: Tensor, points: Tensor) -> Tensor:
    """Rodrigues' formula: each point turned about its own axis, by the axis' length."""
    theta = angles.square().sum(-1, keepdim=True).sqrt()
    axis = angles / theta
    along = (axis * points).sum(-1, keepdim=True)
    return (
        points * theta.cos()
        + torch.linalg.cross(axis, points) * theta.sin()
        + axis * along * (1 - theta.cos())
    )


def project(cameras: Tensor, points: Tensor) -> Tensor:
    """Where cameras see points; a camera is (rotation 3, centre 3, focal length, principal point 2, distortion 2)."""
    seen = rotate(cameras[:, :3], points - cameras[:, 3:6])
    flat = seen[:, :2] / seen[:, 2:]
    square = flat.square().sum(-1, keepdim=True)
    distortion = 1 + cameras[:, 9:10] * square + cameras[:, 10:] * square**2
    return flat * distortion * cameras[:, 6:7] + cameras[:, 7:9]


class Problem(NamedTuple):
    """Who sees what, and where; the unknowns are all weights, points and cameras in one vector."""

    cameras: int
    points: int
    camera: Tensor
    point: Tensor
    features: Tensor

    def residual(self, x: Tensor) -> Tensor:
        """The weighted reprojection errors and the weights' own, shape (o, 3)."""
        weights, points, cameras = x.split([len(self.camera), 3 * self.points, 11 * self.cameras])
        seen = project(cameras.view(-1, 11)[self.camera], points.view(-1, 3)[self.point])
        return torch.cat([weights[:, None] * (seen - self.features), 1 - weights[:, None] ** 2], 1)

    def columns(self) -> Tensor:
        """The columns of J that are not zero, row after row, as the theory has them."""
        weight = torch.arange(len(self.camera))[:, None]
        point = len(weight) + 3 * self.point[:, None] + torch.arange(3)
        camera = len(weight) + 3 * self.points + 11 * self.camera[:, None] + torch.arange(11)
        across, down = torch.arange(11) != 8, torch.arange(11) != 7
        rows = [weight, point, camera[:, across], weight, point, camera[:, down], weight]
        return torch.cat(rows, 1).flatten()


def random_problem(cameras: int, points: int, observations: int) -> tuple[Problem, Tensor]:
    """A problem with a known solution up to noise of 1e-5, and a start near it."""
    make = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=make, dtype=torch.float64)
    camera = torch.randint(cameras, (observations,), generator=make)
    point = torch.randint(points, (observations,), generator=make)
    base = torch.tensor([0, 0, 0, 0, 0, -9, 1, 0, 0, 0, 0], dtype=torch.float64)
    true_cameras, true_points = base + 0.1 * draw(cameras, 11), draw(points, 3)
    features = project(true_cameras[camera], true_points[point]) + 1e-5 * draw(observations, 2)
    near_cameras, near_points = (
        true_cameras + 0.001 * draw(cameras, 11),
        true_points + 0.001 * draw(points, 3),
    )
    weights = torch.ones(observations, dtype=torch.float64)
    x = torch.cat([weights, near_points.flatten(), near_cameras.flatten()])
    return Problem(cameras, points, camera, point, features), x


def damped_step(problem: Problem, x: Tensor, damping: float) -> Tensor:
    """One step of Levenberg and Marquardt (Nocedal & Wright, Numerical Optimization, section 10.3)."""
    residual, J = torchjac.value_and_jacobian(problem.residual)(x)
    gram = J.gram().to_scipy("csc")
    matrix = gram + diags_array(damping * gram.diagonal() + 1e-12)
    # Positive definite: no pivoting is needed, and the order of the unknowns stays.
    factors = splu(matrix.tocsc(), "NATURAL", diag_pivot_thresh=0, options={"SymmetricMode": True})
    return x - torch.from_numpy(factors.solve((residual @ J).numpy()))


def row_by_row(problem: Problem, x: Tensor) -> Tensor:
    """The dense Jacobian by one call of PyTorch's engine for each row."""
    leaf = x.clone().requires_grad_()
    rows = [torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in problem.residual(leaf).flatten()]
    return torch.stack(rows)


def main(argv: list[str] | None = None) -> None:
    """Check a small problem, then take steps on a large one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=20_000)
    options = parser.parse_args(argv)

    problem, x = random_problem(3, 5, 9)
    J = torchjac.jacobian(problem.residual)(x)
    difference = (J.to_dense().flatten(0, 1) - row_by_row(problem, x)).abs().max()
    print(f"9 observations: largest difference from the row-by-row Jacobian {float(difference):.1e}")

    count = options.observations
    problem, x = random_problem(max(2, count // 400), max(3, count // 7), count)
    begin = perf_counter()
    J = torchjac.jacobian(problem.residual)(x)
    csr = J.to_sparse(torch.sparse_csr)
    print(f"{count:,} observations: {J}")
    print(
        f"J in CSR: {csr.values().numel():,} entries in {perf_counter() - begin:.2f} s; "
        f"29 for each observation: {csr.values().numel() == 29 * count}; columns as the theory has them: "
        f"{torch.equal(csr.col_indices(), problem.columns())}"
    )
    norm = problem.residual(x).norm()
    for iteration in range(3):
        begin = perf_counter()
        x = damped_step(problem, x, 1e-6)
        before, norm = norm, problem.residual(x).norm()
        print(
            f"step {iteration + 1}: residual {before:.1e} → {norm:.1e}, {perf_counter() - begin:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
