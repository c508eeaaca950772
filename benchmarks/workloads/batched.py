"""Networks on a batch: rows of the batch do not see each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..spelling import layer_norm, relu, softmax
from ..workload import Array, Places, Workload, random, row_places, rowwise, workload
from .dense import layers, mlp

SIZES = {"batch": 64, "widths": (32, 64, 32)}
SMALL = {"batch": 3, "widths": (4, 5, 2)}


def row_blocks(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, ...]:
    """One matrix for each row of the batch: W₂ᵀ diag(1 - h²) W₁ᵀ."""
    h = torch.tanh(x @ w1 + b1)
    return ((w2.T * (1 - h * h)[:, None]) @ w1.T,)


def spread(blocks: Callable[..., Any]) -> Callable[..., Tensor]:
    """The dense answer: the blocks of the batch on the diagonal of zeros."""

    def hand(x: Tensor, *constants: Tensor) -> Tensor:
        (values,) = blocks(x, *constants)
        batch, o, i = values.shape
        out = values.new_zeros(batch, o, batch, i)
        out.diagonal(dim1=0, dim2=2).copy_(values.permute(1, 2, 0))
        return out

    return hand


@workload(SMALL, SIZES)
def whole(batch: int, widths: tuple[int, ...]) -> Workload:
    """The batch given whole, as a person who does not think about it would."""
    places = row_places(batch, widths[-1], widths[0])
    return Workload(
        f"batched MLP {batch}×({'-'.join(map(str, widths))}), whole",
        mlp,
        random(1).standard_normal((batch, widths[0])),
        layers(*widths),
        by_hand=rowwise,
        by_hand_places=places,
        hand=spread(row_blocks),
        blocks=row_blocks,
        blocks_places=places,
        dense=batch <= 256,
        compiled=True,
        goals=(("dense", "torch.func.jacrev", 1 / 5),),
    )


@workload(SMALL, SIZES)
def sum_trick(batch: int, widths: tuple[int, ...]) -> Workload:
    """The sum over the batch is differentiated: its Jacobian holds the one of each row."""
    return Workload(
        f"batched MLP {batch}×({'-'.join(map(str, widths))}), sum trick",
        lambda xp, x, *parameters: mlp(xp, x, *parameters).sum(0),
        random(1).standard_normal((batch, widths[0])),
        layers(*widths),
        hand=lambda x, *parameters: row_blocks(x, *parameters)[0].transpose(0, 1).contiguous(),
        structured=False,
    )


@workload(SMALL, SIZES)
def mapped(batch: int, widths: tuple[int, ...]) -> Workload:
    """The Jacobian of a row under vmap."""
    return Workload(
        f"batched MLP {batch}×({'-'.join(map(str, widths))}), vmap",
        mlp,
        random(1).standard_normal((batch, widths[0])),
        layers(*widths),
        hand=lambda x, *parameters: row_blocks(x, *parameters)[0],
        batched=True,
        structured=False,
    )


@workload({"batch": 3, "d": 4, "hidden": 5}, {"batch": 1024, "d": 8, "hidden": 64})
def autoregressive(batch: int, d: int, hidden: int) -> Workload:
    """A masked autoregressive network (MADE): output k depends on the inputs before k only."""
    rng = random()
    degree = np.arange(hidden) % (d - 1)
    masks = [
        np.arange(d)[:, None] <= degree[None],
        degree[:, None] <= degree[None],
        degree[:, None] < np.arange(d)[None],
    ]
    parameters = []
    for mask in masks:
        parameters += [
            mask * rng.standard_normal(mask.shape) / hidden**0.5,
            rng.standard_normal(mask.shape[1]),
        ]
    places = row_places(batch, d, d)

    def blocks(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> Any:
        h1 = torch.tanh(x @ w1 + b1)
        h2 = torch.tanh(h1 @ w2 + b2)
        left = (w3.T * (1 - h2 * h2)[:, None]) @ w2.T
        return ((left * (1 - h1 * h1)[:, None]) @ w1.T,)

    return Workload(
        f"masked autoregressive MLP, batch {batch}",
        mlp,
        rng.standard_normal((batch, d)),
        tuple(parameters),
        by_hand=rowwise,
        by_hand_places=places,
        hand=spread(blocks),
        blocks=blocks,
        blocks_places=places,
    )


@workload({"batch": 2, "t": 3, "d": 4, "hidden": 5}, {"batch": 8, "t": 16, "d": 32, "hidden": 64})
def transformer(batch: int, t: int, d: int, hidden: int) -> Workload:
    """An encoder layer (one head of attention, a network, two norms): samples do not see each other."""
    rng = random()
    shapes = [(d, 3 * d), (d, d), (d, hidden), (hidden, d)]
    weights = [rng.standard_normal(shape) / shape[0] ** 0.5 for shape in shapes]
    norms = [1 + rng.standard_normal(d) / 10 for _ in range(4)]

    def function(xp: Any, x: Array, qkv: Array, o: Array, up: Array, down: Array, *norm: Array) -> Array:
        mixed = x @ qkv
        q, k, v = mixed[..., :d], mixed[..., d : 2 * d], mixed[..., 2 * d :]
        attention = softmax(xp, q @ xp.swapaxes(k, -1, -2) / d**0.5) @ v @ o
        x = layer_norm(xp, x + attention, norm[0], norm[1])
        return layer_norm(xp, x + relu(xp, x @ up) @ down, norm[2], norm[3])

    def places() -> Places:
        return row_places(batch, t * d, t * d)()

    return Workload(
        f"transformer encoder layer, {batch}×{t}×{d}",
        function,
        rng.standard_normal((batch, t, d)),
        (*weights, *norms),
        by_hand=rowwise,
        by_hand_places=places,
    )


@workload({"batch": 3, "widths": (4, 5, 3, 2)}, {"batch": 64, "widths": (784, 100, 64, 10)})
def parameters(batch: int, widths: tuple[int, ...]) -> Workload:
    """The Jacobian of a batch of outputs with respect to a network's parameters, by functional_call."""
    tensors = layers(*widths)
    names = [f"{2 * (k // 2)}.{'weight' if k % 2 == 0 else 'bias'}" for k in range(len(tensors))]
    linears = [torch.nn.Linear(n, m) for n, m in pairwise(widths)]
    module = torch.nn.Sequential(*[part for linear in linears for part in (linear, torch.nn.Tanh())][:-1])

    def function(xp: Any, values: dict[str, Array], x: Array) -> Array:
        if xp is torch:
            return torch.func.functional_call(module, values, (x,))
        for k in range(0, len(names), 2):
            x = x @ values[names[k]].T + values[names[k + 1]]
            x = xp.tanh(x) if k < len(names) - 2 else x
        return x

    def by_hand(
        vmap: Callable[..., Any], jac: Callable[..., Any], g: Callable[..., Any]
    ) -> Callable[..., Any]:
        return lambda values, x: vmap(lambda row: jac(lambda p: g(p, row))(values))(x)

    size = sum(tensor.size for tensor in tensors)
    return Workload(
        f"parameters of an MLP ({size:,}), batch {batch}",
        function,
        {name: value.T.copy() for name, value in zip(names, tensors, strict=True)},
        (random().standard_normal((batch, widths[0])),),
        by_hand=by_hand,
        structured=False,
    )
