"""Functions whose Jacobian is dense, or is asked for as a dense tensor."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..workload import Array, Places, Workload, random, workload


def layers(*widths: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Weights and biases of a network, alternating."""
    rng = random(seed)
    pairs = [(rng.standard_normal((n, m)) / n**0.5, rng.standard_normal(m)) for n, m in pairwise(widths)]
    return tuple(tensor for pair in pairs for tensor in pair)


def mlp(xp: Any, x: Array, *parameters: Array) -> Array:
    """Linear layers with tanh between them; rows of ``x`` never see each other."""
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = xp.tanh(x @ weight + bias)
    return x @ parameters[-2] + parameters[-1]


def mlp_by_hand(x: Tensor, *parameters: Tensor) -> Tensor:
    """The Jacobian of `mlp` at one row: Wₖᵀ diag(h′) … W₁ᵀ, multiplied from the narrower end."""
    factors = []
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        x = torch.tanh(x @ weight + bias)
        factors.append(weight.T * (1 - x * x)[:, None])
    factors.append(parameters[-2].T)
    if parameters[0].shape[0] <= parameters[-2].shape[1]:
        out = factors[0]
        for factor in factors[1:]:
            out = factor @ out
        return out
    out = factors[-1]
    for factor in factors[-2::-1]:
        out = out @ factor
    return out


@workload({"n": 5}, {"n": 2000})
def sine(n: int) -> Workload:
    """The plainest diagonal."""

    def hand(x: Tensor) -> Tensor:
        out = torch.zeros(n, n, dtype=x.dtype)
        out.diagonal().copy_(x.cos())
        return out

    return Workload(
        f"sin, n={n}",
        lambda xp, x: xp.sin(x),
        random().standard_normal(n),
        hand=hand,
        blocks=lambda x: (x.cos(),),
        blocks_places=lambda: Places(np.arange(n), np.arange(n), (n, n)),
        casadi=lambda ca, x: ca.sin(x),
        compiled=True,
        goals=(("dense", "hand", 1.5),),
    )


@workload({"widths": (5, 7, 6, 4)}, {"widths": (256, 512, 512, 256)})
def dense_mlp(widths: tuple[int, ...]) -> Workload:
    """One row through a network: nothing but matrix products."""
    return Workload(
        f"dense MLP {'-'.join(map(str, widths))}",
        mlp,
        random(1).standard_normal(widths[0]),
        layers(*widths),
        hand=mlp_by_hand,
        structured=False,
        compiled=True,
        goals=(("dense", "torch.func.jacrev", 0.75),),
    )


@workload({"wide": 7, "narrow": 2}, {"wide": 2000, "narrow": 5})
def wide_narrow_wide(wide: int, narrow: int) -> Workload:
    """A Jacobian of rank 5: best multiplied from the middle."""
    return Workload(
        f"wide-narrow-wide {wide}-{narrow}-{wide}",
        mlp,
        random(1).standard_normal(wide),
        layers(wide, narrow, wide),
        hand=mlp_by_hand,
        structured=False,
        goals=(("dense", "hand", 1.5),),
    )


@workload({"narrow": 2, "wide": 9}, {"narrow": 4, "wide": 20000})
def narrow_wide(narrow: int, wide: int) -> Workload:
    """Few inputs, many outputs: forward mode's case."""
    return Workload(
        f"narrow-wide {narrow}→{wide}",
        mlp,
        random(1).standard_normal(narrow),
        layers(narrow, 64, wide),
        hand=mlp_by_hand,
        structured=False,
    )


@workload({"m": 5}, {"m": 500}, {"m": 2000})
def kernel_sum(m: int, d: int = 2) -> Workload:
    """A sum of Gaussians centred at the points themselves: fᵢ = Σⱼ exp(-|xᵢ - xⱼ|²/2) aⱼ, for points of the plane.

    Each of its m rows drags m × m differences along, so that torch.func.jacrev needs 16 m³ bytes at a time.
    """

    def function(xp: Any, x: Array, a: Array) -> Array:
        squares = ((x[:, None] - x[None]) ** 2).sum(-1)
        return xp.exp(-squares / 2) @ a

    def hand(x: Tensor, a: Tensor) -> Tensor:
        difference = x[:, None] - x[None]
        kernel = torch.exp(-difference.square().sum(-1) / 2) * a
        out = difference.mul_(kernel[:, :, None])
        out.diagonal(dim1=0, dim2=1).sub_(out.sum(1).T)
        return out

    rng = random()
    return Workload(
        f"RBF sum of {m} points",
        function,
        rng.standard_normal((m, d)),
        (rng.standard_normal(m),),
        hand=hand,
        jax=m <= 1000,  # where memory is out, jax ends the process
        structured=False,
    )
