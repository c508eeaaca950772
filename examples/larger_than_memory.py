"""A dense Jacobian larger than its memory, written to disk by a process that is killed on the way.

    make example-store
    python examples/larger_than_memory.py --n 50000 --memory "1 GB"    # 20 GB

A species spreads along a ring (Fisher and Kolmogorov's equation, uₜ = uₓₓ + u (1 − u), by Strang splitting: diffusion
by its exact flow in Fourier space, growth by its own). Every point feels every other, so the Jacobian of the flow from
now to then is dense. A process of its own writes it within a budget of memory; it is killed twice while it does, and
begun again by the same call, which goes on where the last one was.

What is on disk is then used from there: products with vectors, each one pass over the file, serve SciPy's `svds`, which
finds the small change of the beginning that matters most in the end. The check is a symmetry: the equation is the same
everywhere on the ring, so the flow of a shifted beginning is the shifted end, and J ∂u(0)/∂x = ∂u(T)/∂x.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from matplotlib.figure import Figure
from scipy.sparse.linalg import svds
from torch import Tensor

import torchjac.store

LENGTH, STEPS, DT = 80.0, 12, 0.5


def waves(n: int) -> Tensor:
    """The wave numbers of a real Fourier transform of n points of the ring."""
    return 2 * torch.pi * torch.fft.rfftfreq(n, LENGTH / n, dtype=torch.float64)


def flow(u: Tensor) -> Tensor:
    """What is there in the end, from what is there now."""
    diffused = torch.exp(-0.5 * DT * waves(len(u)) ** 2)
    for _ in range(STEPS):
        u = torch.fft.irfft(diffused * torch.fft.rfft(u), len(u))
        u = u / (u + (1 - u) * torch.exp(torch.tensor(-DT, dtype=torch.float64)))
        u = torch.fft.irfft(diffused * torch.fft.rfft(u), len(u))
    return u


def beginning(n: int) -> Tensor:
    """Two places where the species is, one with few of it."""
    x = torch.linspace(0, LENGTH, n + 1, dtype=torch.float64)[:-1]
    return 0.8 * torch.exp(-(((x - 25) / 3) ** 2)) + 1e-3 * torch.exp(-(((x - 58) / 3) ** 2))


def slope(u: Tensor) -> Tensor:
    """∂u/∂x."""
    return torch.fft.irfft(1j * waves(len(u)) * torch.fft.rfft(u), len(u))


def write(n: int, path: str, memory: str, progress: bool) -> torchjac.store.Stored:
    """Write the Jacobian, or go on with it."""
    torch.set_num_threads(1)
    return torchjac.store.write(flow, beginning(n), path, memory=memory, progress=progress)


def killed(n: int, path: str, memory: str, share: float) -> float:
    """Let another process write, kill it when a share of the rows is there, and give the share that then is."""
    options = ["--n", str(n), "--memory", memory, "--write", path]
    with subprocess.Popen([sys.executable, __file__, *options]) as writer:
        while writer.poll() is None and written(n, path) < share:
            time.sleep(0.02)
        writer.kill()
    return written(n, path)


def written(n: int, path: str) -> float:
    """The share of the rows that a store has, as its journal tells."""
    journal = Path(path) / "torchjac.pieces"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return int(lines[-1].strip("[]").split(",")[0]) / n if lines else 0.0


def plot(out: str, n: int, change: numpy.ndarray, effect: numpy.ndarray) -> None:
    """Draw the beginning and the end, and the change that matters most with what it becomes."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    u, x = beginning(n), numpy.linspace(0, LENGTH, n, endpoint=False)
    left.plot(x, u, label="now")
    left.plot(x, flow(u), label="then")
    left.set(title="the species", xlabel="place")
    sign = numpy.sign(change[numpy.abs(change).argmax()])
    right.plot(x, sign * change, label="the change that matters most")
    right.plot(x, sign * effect, label="what becomes of it")
    right.set(title="largest singular vectors of the flow's Jacobian", xlabel="place")
    for axes in (left, right):
        axes.legend()
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Write with two kills, check, use, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="larger_than_memory.png", help="where to save the picture")
    parser.add_argument("--n", type=int, default=5000, help="points of the ring; the Jacobian has n² numbers")
    parser.add_argument("--memory", default="40 MB", help="the budget that it is written within")
    parser.add_argument(
        "--write", metavar="PATH", help="write the store and nothing else, as the process killed does"
    )
    options = parser.parse_args(argv)
    if options.write:
        write(options.n, options.write, options.memory, progress=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store")
        for share in (0.2, 0.6):
            there = killed(options.n, path, options.memory, share)
            print(f"killed, with {there:.0%} of the rows on disk")
        J = write(options.n, path, options.memory, progress=sys.stderr.isatty())
        J.verify()
        print(
            f"finished: {J.nnz * J.dtype.itemsize / 1e6:,.0f} MB of numbers within {options.memory}, checksums right"
        )
        u = beginning(options.n)
        moved, expected = J @ slope(u), slope(flow(u))
        print(f"J ∂u(0)/∂x against ∂u(T)/∂x: {float((moved - expected).norm() / expected.norm()):.1e}")
        start = numpy.ones(options.n)
        left, (largest,), right = svds(J.as_linear_operator(), k=1, v0=start, tol=1e-8)
        at = numpy.abs(right[0]).argmax() * LENGTH / options.n
        print(f"the change that matters most is at {at:.1f}; it becomes {largest:.1f} times as large")
        plot(options.out, options.n, right[0], largest * left[:, 0])
    print(f"drawn in {options.out}")


if __name__ == "__main__":
    main()
