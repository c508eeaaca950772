"""Jacobians of each sample as people take them: vmap around jacrev, jacfwd or hessian, beside torch.func's own.

    python benchmarks/everyday_vmap.py                          the table
    python benchmarks/everyday_vmap.py --only arm --batch 32    some of it

A row is a function and a batch; the time of our `vmap(jacrev(f))` (or `hessian`) is divided by the best of
torch.func's jacrev and jacfwd, for Hessians of hessian and jacrev(jacrev). "diagonal" is the time of ours over that of
`jacobian(vmap(f))(xs).block_diagonal()`, which is the same walk. Calls take turns in one process, on one thread.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import exp, log
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import torchjac
from benchmarks.timing import alternate

BATCHES = (4, 32, 512)
#: The goals: of the geometric mean, of each, and of each by parameters.
MEAN, EACH, PARAMETERS = 0.5, 1.0, 0.7
#: Calls of ours before any is timed: the first ones record what they do, in each way that may be the cheapest
WARM = 64


class Problem(NamedTuple):
    """A function of one sample of a shape, or of shared parameters and one; ``order`` 2 asks for its Hessian."""

    function: Callable[..., Tensor]
    shape: tuple[int, ...]
    parameters: Any = None
    order: int = 1


def dense(*sizes: int) -> list[Tensor]:
    """Weights and biases of a network."""
    pairs = pairwise(sizes)
    return [part for a, b in pairs for part in (torch.randn(b, a) / a**0.5, 0.1 * torch.randn(b))]


def network(parts: list[Tensor], x: Tensor) -> Tensor:
    """A multi-layer perceptron."""
    for w, b in zip(parts[:-2:2], parts[1:-2:2], strict=True):
        x = F.linear(x, w, b).tanh()
    return F.linear(x, *parts[-2:])


def convolutions(parts: list[Tensor], x: Tensor) -> Tensor:
    """Two convolutions and a linear layer."""
    first, second, last = parts
    x = F.relu(F.conv2d(x[None], first, padding=1))
    return F.linear(F.relu(F.conv2d(x, second, padding=1)).flatten(), last)


def lstm_cell(parts: list[Tensor], x: Tensor) -> Tensor:
    """One step of an LSTM from input and state, all in one vector."""
    w, b = parts
    hidden = w.shape[0] // 4
    x, c = x[:-hidden], x[-hidden:]
    i, f, g, o = F.linear(x, w, b).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return torch.cat([o.sigmoid() * c.tanh(), c])


def attention(parts: list[Tensor], x: Tensor) -> Tensor:
    """One head over a short sequence."""
    q, k, v = (x @ w for w in parts)
    return torch.softmax(q @ k.T / 8**0.5, -1) @ v


def lorenz(x: Tensor) -> Tensor:
    """Lorenz's system."""
    return torch.stack([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])


def kinetics(y: Tensor) -> Tensor:
    """Robertson's reactions."""
    a, b, c = y
    slow, fast, back = 0.04 * a, 3e2 * b * b, 10.0 * b * c
    return torch.stack([back - slow, slow - back - fast, fast])


def pendulum(x: Tensor) -> Tensor:
    """A double pendulum."""
    p, q, u, v = x.unbind()
    s, c = (p - q).sin(), (p - q).cos()
    down = 2 - c * c
    du = (-s * c * u * u - s * v * v - 2 * p.sin() + q.sin() * c) / down
    dv = (2 * s * u * u + s * c * v * v + 2 * p.sin() * c - 2 * q.sin()) / down
    return torch.stack([u, v, du, dv])


def predator(coupling: Tensor, x: Tensor) -> Tensor:
    """Lotka and Volterra with six species."""
    return x * (1 - x @ coupling)


def rotation(q: Tensor) -> Tensor:
    """A rotation matrix from a quaternion."""
    w, x, y, z = q / q.norm()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row) for row in rows])


def product(x: Tensor) -> Tensor:
    """The product of two quaternions."""
    a, b, c, d, e, f, g, h = x.unbind()
    return torch.stack([
        a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e,
    ])  # fmt: skip


def planar_arm(q: Tensor) -> Tensor:
    """Where the end of a planar arm is."""
    at = q.cumsum(0)
    return torch.stack([at.cos().sum(), at.sin().sum()])


def spatial_arm(twists: Tensor, q: Tensor) -> Tensor:
    """Where the end of a six-link arm is."""
    pose = torch.eye(4, dtype=q.dtype)
    zero, one = torch.zeros_like(q[0]), torch.ones_like(q[0])
    for k in range(6):
        c, s = q[k].cos(), q[k].sin()
        entries = [
            c,
            -s,
            zero,
            0.3 * one,
            s,
            c,
            zero,
            zero,
            zero,
            zero,
            one,
            0.1 * one,
            zero,
            zero,
            zero,
            one,
        ]
        turn = torch.stack(entries).view(4, 4)
        pose = pose @ turn @ twists[k]
    return pose[:3, 3]


def camera(x: Tensor) -> Tensor:
    """A point seen by a camera: rotation vector, translation, focal length and distortion, and the point."""
    r, t, (f, k), p = x[:3], x[3:6], x[6:8], x[8:]
    angle = (r * r).sum().sqrt()
    axis = r / angle
    p = (
        p * angle.cos()
        + torch.linalg.cross(axis, p) * angle.sin()
        + axis * (axis @ p) * (1 - angle.cos())
        + t
    )
    p = p[:2] / p[2]
    return f * (1 + k * (p @ p)) * p


def runge_kutta(x: Tensor) -> Tensor:
    """Four steps of the classical method."""
    for _ in range(4):
        a = lorenz(x)
        b = lorenz(x + 0.005 * a)
        c = lorenz(x + 0.005 * b)
        d = lorenz(x + 0.01 * c)
        x = x + 0.01 / 6 * (a + 2 * b + 2 * c + d)
    return x


def euler(field: Tensor, x: Tensor) -> Tensor:
    """Twenty steps of Euler's method for a network's field."""
    for _ in range(20):
        x = x + 0.05 * (x @ field).tanh()
    return x


def coupling(order: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """Four coupling layers of a normalising flow."""
    for k in range(4):
        a, z = x[order].chunk(2)
        s, t = (a @ weights[k]).chunk(2)
        x = torch.cat([a, z * s.tanh().exp() + t])
    return x


def kalman(turning: Tensor, x: Tensor) -> Tensor:
    """The prediction of an extended Kalman filter: position, velocity, quaternion and biases after a step."""
    p, v, q, bias = x[:3], x[3:6], x[6:10], x[10:13]
    w = 0.01 * (turning - bias)
    step = torch.cat([1 - (w * w).sum(0, keepdim=True) / 8, w / 2])
    q = product(torch.cat([q, step]))
    v = v + 0.01 * rotation(q) @ turning
    return torch.cat([p + 0.01 * v, v, q, bias])


def posterior(x: Tensor) -> Tensor:
    """A Gaussian process through a few points, at those points."""
    kernel = (-((x[:, None] - x[None]) ** 2)).exp() + torch.eye(len(x), dtype=x.dtype)
    return torch.linalg.solve(kernel, x.sin())


def likelihood(x: Tensor) -> Tensor:
    """The negative log likelihood of a small Gaussian process."""
    kernel = (-((x[:, None] - x[None]) ** 2)).exp() + 0.1 * torch.eye(len(x), dtype=x.dtype)
    factor = torch.linalg.cholesky(kernel)
    return torch.cholesky_solve(x.sin()[:, None], factor)[:, 0] @ x + factor.diagonal().log().sum()


def rosenbrock(x: Tensor) -> Tensor:
    """The function that optimisers are tried on."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def springs(x: Tensor) -> Tensor:
    """The energy of a chain in the plane."""
    return ((x[1:] - x[:-1]).square().sum(-1).sqrt() - 1).square().sum()


def heat(parts: list[Tensor], x: Tensor, J: Any) -> Tensor:
    """The residual of the heat equation at a point, by nested Jacobians of a network."""

    def u(x: Tensor) -> Tensor:
        return network(parts, x)[0]

    return J(u)(x)[0] - J(J(u))(x)[1, 1]


def problems() -> dict[str, Problem]:
    """All of them, with new weights in the default dtype."""
    torch.manual_seed(0)
    mixing, turning, order = torch.randn(6, 6) / 6, torch.randn(3), torch.tensor([3, 1, 5, 0, 2, 4])
    small, deep, wide = dense(6, 32, 32, 4), dense(4, *[8] * 20, 2), dense(16, 256, 10)
    images = [torch.randn(4, 1, 3, 3) / 3, torch.randn(4, 4, 3, 3) / 6, torch.randn(3, 4 * 36) / 12]
    cell, heads = [torch.randn(64, 24) / 5, torch.zeros(64)], list(torch.randn(3, 8, 8) / 3)
    u = dense(2, 20, 20, 1)
    return {
        "Lorenz": Problem(lorenz, (3,)),
        "kinetics": Problem(kinetics, (3,)),
        "double pendulum": Problem(pendulum, (4,)),
        "predators": Problem(partial(predator, mixing), (6,)),
        "rotation of a quaternion": Problem(rotation, (4,)),
        "product of quaternions": Problem(product, (8,)),
        "planar arm": Problem(planar_arm, (7,)),
        "spatial arm": Problem(partial(spatial_arm, torch.eye(4) + 0.3 * torch.randn(6, 4, 4)), (6,)),
        "camera": Problem(camera, (11,)),
        "Runge-Kutta": Problem(runge_kutta, (3,)),
        "Euler of a network": Problem(partial(euler, torch.randn(8, 8) / 3), (8,)),
        "coupling flow": Problem(partial(coupling, order, torch.randn(4, 3, 6)), (6,)),
        "Kalman step": Problem(partial(kalman, turning), (13,)),
        "Gaussian process": Problem(posterior, (6,)),
        "softmax": Problem(lambda x: torch.softmax(x @ mixing, -1), (6,)),
        "MLP by input": Problem(lambda x: network(small, x), (6,)),
        "deep MLP by input": Problem(lambda x: network(deep, x), (4,)),
        "wide MLP by input": Problem(lambda x: network(wide, x), (16,)),
        "conv net by input": Problem(lambda x: convolutions(images, x), (1, 6, 6)),
        "LSTM cell by state": Problem(lambda x: lstm_cell(cell, x), (40,)),
        "attention by input": Problem(lambda x: attention(heads, x), (6, 8)),
        "layer norm": Problem(lambda x: F.layer_norm(x, (16,)) * x, (16,)),
        "PINN gradient": Problem(lambda x: network(u, x)[0], (2,)),
        "PINN Hessian": Problem(lambda x: network(u, x)[0], (2,), order=2),
        "Rosenbrock Hessian": Problem(rosenbrock, (8,), order=2),
        "springs Hessian": Problem(springs, (6, 2), order=2),
        "arm energy Hessian": Problem(lambda q: planar_arm(q).square().sum(), (7,), order=2),
        "likelihood Hessian": Problem(likelihood, (5,), order=2),
        "log-sum-exp Hessian": Problem(lambda x: (x @ mixing).logsumexp(0), (6,), order=2),
        "MLP by parameters": Problem(network, (6,), small),
        "deep MLP by parameters": Problem(network, (4,), deep),
        "wide MLP by parameters": Problem(network, (16,), wide),
        "conv net by parameters": Problem(convolutions, (1, 6, 6), images),
        "LSTM cell by parameters": Problem(lstm_cell, (40,), cell),
        "attention by parameters": Problem(attention, (6, 8), heads),
        "PINN residual by parameters": Problem(heat, (2,), u, order=0),
    }  # fmt: skip


def calls(problem: Problem, x: Tensor) -> dict[str, Callable[[], Any]]:
    """Ours and torch.func's ways to take it, by their names; the first is ours."""
    func, f, p = torch.func, problem.function, problem.parameters
    vmap, ours = torch.func.vmap, torchjac.jacrev
    if problem.order == 0:

        def residuals(J: Any) -> Any:
            return J(lambda p: vmap(lambda x: f(p, x, J))(x))(p)

        return {"ours": lambda: residuals(ours), "jacrev": lambda: residuals(func.jacrev)}
    if problem.order == 2:
        return {
            "ours": lambda: vmap(torchjac.hessian(f))(x),
            "hessian": lambda: vmap(func.hessian(f))(x),
            "jacrev(jacrev)": lambda: vmap(func.jacrev(func.jacrev(f)))(x),
        }
    if p is not None:
        return {
            "ours": lambda: vmap(ours(f), (None, 0))(p, x),
            "jacrev": lambda: vmap(func.jacrev(f), (None, 0))(p, x),
        }
    return {
        "ours": lambda: vmap(ours(f))(x),
        "jacrev": lambda: vmap(func.jacrev(f))(x),
        "jacfwd": lambda: vmap(func.jacfwd(f))(x),
        "diagonal": lambda: torchjac.jacobian(vmap(f))(x).block_diagonal(),
    }


def check(problem: Problem, x: Tensor, found: dict[str, Callable[[], Any]]) -> None:
    """Raise unless ours agrees with torch.func's."""
    ours, theirs = (found[name]() for name in list(found)[:2])
    tolerance = 1e-8 if x.dtype is torch.float64 else 2e-3
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def main() -> None:
    """Print the table and the goals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--batch", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--dtype", nargs="*", default=["float64", "float32"])
    parser.add_argument("--seconds", type=float, default=0.1, help="for each call")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread, processor time"
    )
    print(f"{'':8} {'':>5} {'':30} {'ours, µs':>10} {'best of torch.func':>24} {'ratio':>7} {'diagonal':>9}")
    ratios: dict[str, float] = {}
    for dtype in args.dtype:
        torch.set_default_dtype(getattr(torch, dtype))
        for batch in args.batch:
            for name, problem in problems().items():
                if args.only not in name:
                    continue
                x = torch.rand(batch, *problem.shape) + 0.1
                found = calls(problem, x)
                check(problem, x, found)
                for _ in range(WARM):
                    found["ours"]()
                    if "diagonal" in found:
                        found["diagonal"]()
                timed = {key: each[0] for key, each in alternate(found, args.seconds, "cpu").items() if each}
                ours, diagonal = timed.pop("ours"), timed.pop("diagonal", None)
                best = min(timed, key=timed.__getitem__)
                ratios[f"{name}, {batch}, {dtype}"] = ratio = ours / timed[best]
                beside = "" if diagonal is None else f"{ours / diagonal:9.2f}"
                theirs = f"{best} {timed[best] * 1e6:9.0f}"
                print(
                    f"{dtype:8} {batch:5} {name:30} {ours * 1e6:10.0f} {theirs:>24} {ratio:7.2f} {beside}",
                    flush=True,
                )
    mean = exp(sum(map(log, ratios.values())) / len(ratios))
    worst = max(ratios, key=ratios.__getitem__)
    print(f"geometric mean {mean:.2f} (goal {MEAN}), worst {ratios[worst]:.2f} (goal {EACH}): {worst}")
    by = {key: ratio for key, ratio in ratios.items() if "by parameters" in key}
    if by:
        worst = max(by, key=by.__getitem__)
        print(f"by parameters: worst {by[worst]:.2f} (goal {PARAMETERS}): {worst}")


if __name__ == "__main__":
    main()
