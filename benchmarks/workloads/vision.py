"""Convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..spelling import avg_pool2d, conv2d, relu
from ..workload import Array, Workload, random, row_places, rowwise, workload


def filters(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Weights, each followed by its biases."""
    tensors = []
    for shape in shapes:
        tensors += [rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5, rng.standard_normal(shape[0])]
    return tensors


@workload({"size": 5, "channels": 2}, {"size": 64, "channels": 8})
def image_to_image(size: int, channels: int) -> Workload:
    """Three 3 × 3 convolutions with tanh between them: each pixel depends on the 7 × 7 around it."""

    def function(
        xp: Any, x: Array, w1: Array, b1: Array, w2: Array, b2: Array, w3: Array, b3: Array
    ) -> Array:
        h = xp.tanh(conv2d(xp, x, w1, b1, 1))
        return conv2d(xp, xp.tanh(conv2d(xp, h, w2, b2, 1)), w3, b3, 1)

    def hand(x: Tensor, *weights: Tensor) -> Tensor:
        """Pixels seven apart share a probe: 49 backward passes give every entry."""
        own = torch.arange(size)
        color = (own[:, None] % 7) * 7 + own[None] % 7
        probes = torch.nn.functional.one_hot(color, 49).permute(2, 0, 1)[:, None].to(x.dtype)
        with torch.enable_grad():
            leaf = x.detach().expand(49, 1, size, size).requires_grad_()
            (rows,) = torch.autograd.grad(function(torch, leaf, *weights), leaf, probes)
        out = x.new_zeros(size, size, size, size)
        far = (own[:, None] - own[None]).abs() <= 3
        near = (far[:, None, :, None] & far[None, :, None, :]).nonzero(as_tuple=True)
        out[near] = rows[color[near[0], near[1]], 0, near[2], near[3]]
        return out.view(1, 1, size, size, 1, 1, size, size)

    rng = random()
    shapes = [(channels, 1, 3, 3), (channels, channels, 3, 3), (1, channels, 3, 3)]
    return Workload(
        f"conv net image→image {size}×{size}",
        function,
        rng.standard_normal((1, 1, size, size)),
        tuple(filters(rng, *shapes)),
        hand=hand,
    )


@workload({"batch": 2}, {"batch": 16})
def lenet(batch: int) -> Workload:
    """LeNet-5: ten scores of each digit by its pixels."""

    def function(xp: Any, x: Array, *w: Array) -> Array:
        single = x.ndim == 3
        x = x[None] if single else x
        x = avg_pool2d(xp, xp.tanh(conv2d(xp, x, w[0], w[1], 2)))
        x = avg_pool2d(xp, xp.tanh(conv2d(xp, x, w[2], w[3])))
        x = x.reshape(x.shape[0], -1)
        for k in (4, 6):
            x = xp.tanh(x @ w[k].T + w[k + 1])
        x = x @ w[8].T + w[9]
        return x[0] if single else x

    rng = random()
    shapes = [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    return Workload(
        f"LeNet, batch {batch}",
        function,
        rng.standard_normal((batch, 1, 28, 28)),
        tuple(filters(rng, *shapes)),
        by_hand=rowwise,
        by_hand_places=row_places(batch, 10, 784),
    )


def tangent_kernel(batch: int, channels: int, size: int, spelling: str) -> Workload:
    """The network of PyTorch's tutorial on neural tangent kernels: its Jacobian in the parameters, on a batch."""
    rng = random()
    inner = size - 6
    shapes = [(channels, 3, 3, 3), *[(channels, channels, 3, 3)] * 2, (10, channels * inner**2)]
    tensors = filters(rng, *shapes)
    names = [f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "fc") for kind in ("weight", "bias")]

    def function(xp: Any, p: dict[str, Array], x: Array) -> Array:
        single = x.ndim == 3
        x = x[None] if single else x
        x = relu(xp, conv2d(xp, x, p["conv1.weight"], p["conv1.bias"]))
        x = relu(xp, conv2d(xp, x, p["conv2.weight"], p["conv2.bias"]))
        x = conv2d(xp, x, p["conv3.weight"], p["conv3.bias"]).reshape(x.shape[0], -1)
        x = x @ p["fc.weight"].T + p["fc.bias"]
        return x[0] if single else x

    def mapped(
        vmap: Callable[..., Any], jac: Callable[..., Any], g: Callable[..., Any]
    ) -> Callable[..., Any]:
        return lambda values, x: vmap(lambda row: jac(lambda p: g(p, row))(values))(x)

    return Workload(
        f"tangent kernel's Jacobian, batch {batch}, {spelling}",
        function,
        dict(zip(names, tensors, strict=True)),
        (rng.standard_normal((batch, 3, size, size)),),
        by_hand=mapped,
        structured=False,
        batched=spelling == "vmap",
    )


@workload({"batch": 2, "channels": 2, "size": 8}, {"batch": 5, "channels": 32, "size": 32})
def tangent_kernel_whole(batch: int, channels: int, size: int) -> Workload:
    """The batch given whole."""
    return tangent_kernel(batch, channels, size, "whole")


@workload({"batch": 2, "channels": 2, "size": 8}, {"batch": 5, "channels": 32, "size": 32})
def tangent_kernel_mapped(batch: int, channels: int, size: int) -> Workload:
    """The Jacobian of one image under vmap, as the tutorial has it."""
    return tangent_kernel(batch, channels, size, "vmap")
