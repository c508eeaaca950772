"""Nonzeros of sparse Jacobians and Hessians: torchjac's, asdex's and the theory's.

    python benchmarks/nonzeros.py              n = 1,024
    python benchmarks/nonzeros.py --n 64

torchjac reads the structure off the graph of the call; asdex (`pip install asdex`) detects it by interpreting
the jaxpr. Where asdex is not installed its column says missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch

import torchjac


class Structured(NamedTuple):
    """A problem: ``function(xp, x)`` spelled for torch and jax.numpy alike, and its nonzeros for n unknowns."""

    name: str
    order: int
    function: Callable[[Any, Any], Any]
    theory: Callable[[int], int]


def arrow(xp: Any, x: Any) -> Any:
    """The first row is full, and so are the first column and the diagonal."""
    return xp.concatenate([x.sum().reshape(1), x[:1] * x[1:]])


def layer(xp: Any, x: Any) -> Any:
    """A layer from four features to four, on a batch."""
    return xp.tanh(x.reshape(-1, 4) @ (xp.ones((4, 4)) / 2)).reshape(-1)


def side(x: Any) -> Any:
    """The unknowns on a square grid."""
    length = round(x.shape[0] ** 0.5)
    return x.reshape(length, length)


def reaction_diffusion(xp: Any, x: Any) -> Any:
    """A five-point stencil on a periodic grid, and a pointwise reaction."""
    w = side(x)
    neighbours = xp.roll(w, 1, 0) + xp.roll(w, -1, 0) + xp.roll(w, 1, 1) + xp.roll(w, -1, 1)
    return neighbours - 4 * w + xp.sin(w)


def springs(xp: Any, x: Any) -> Any:
    """The energy of springs between neighbours on a periodic grid."""
    w = side(x)
    return ((w - xp.roll(w, 1, 0)) ** 4 + (w - xp.roll(w, 1, 1)) ** 4).sum()


PROBLEMS = [
    Structured("banded", 1, lambda xp, x: x[2:] * x[1:-1] + xp.sin(x[:-2]), lambda n: 3 * (n - 2)),
    Structured("arrow", 1, arrow, lambda n: 3 * n - 2),
    Structured("block", 1, layer, lambda n: 4 * n),
    Structured("grid", 1, reaction_diffusion, lambda n: 5 * n),
    Structured("banded", 2, lambda xp, x: xp.sin(x[1:] * x[:-1]).sum(), lambda n: 3 * n - 2),
    Structured("arrow", 2, lambda xp, x: (x[0] ** 2 * x[1:] ** 2).sum(), lambda n: 3 * n - 2),
    Structured("block", 2, lambda xp, x: (x.reshape(-1, 4).sum(1) ** 3).sum(), lambda n: 4 * n),
    Structured("grid", 2, springs, lambda n: 5 * n),
]


def ours(problem: Structured, n: int) -> torchjac.Jacobian:
    """The Jacobian, or the Hessian as the Jacobian of the gradient, at a fixed point without zeros."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return problem.function(torch, x)

    x = torch.linspace(0.1, 1, n)
    return torchjac.jacobian(function if problem.order == 1 else torchjac.grad(function))(x)


def theirs(problem: Structured, n: int) -> str:
    """What asdex detects."""
    try:
        asdex, numpy = import_module("asdex"), import_module("jax.numpy")
    except ImportError:
        return "missing"
    detect = asdex.jacobian_sparsity if problem.order == 1 else asdex.hessian_sparsity
    return f"{detect(lambda x: problem.function(numpy, x), numpy.linspace(0.1, 1, n)).nnz:,}"


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status tells whether torchjac agrees with the theory everywhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1024, help="unknowns: the square of a multiple of four")
    options = parser.parse_args(argv)
    agrees = True
    print(f"{'n = ' + format(options.n, ','):20}{'theory':>12}{'torchjac':>12}{'asdex':>12}")
    for problem in PROBLEMS:
        found, expected = ours(problem, options.n).nnz, problem.theory(options.n)
        agrees &= found == expected
        title = f"{problem.name} {'Jacobian' if problem.order == 1 else 'Hessian'}"
        print(f"{title:20}{expected:>12,}{found:>12,}{theirs(problem, options.n):>12}", flush=True)
    print(f"torchjac {'agrees' if agrees else 'disagrees'} with the theory")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
