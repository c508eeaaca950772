"""Layers of networks in both namespaces, torch and jax.numpy, each in its own spelling."""

from __future__ import annotations

from typing import Any

import torch

Array = Any


def conv2d(xp: Any, x: Array, weight: Array, bias: Array, padding: int = 0) -> Array:
    """A convolution of images (batch, channels, height, width)."""
    if xp is torch:
        return torch.nn.functional.conv2d(x, weight, bias, padding=padding)
    import jax

    out = jax.lax.conv_general_dilated(x, weight, (1, 1), [(padding, padding)] * 2)
    return out + bias[:, None, None]


def avg_pool2d(xp: Any, x: Array) -> Array:
    """The mean of each 2 × 2 window."""
    if xp is torch:
        return torch.nn.functional.avg_pool2d(x, 2)
    return x.reshape(*x.shape[:-2], x.shape[-2] // 2, 2, x.shape[-1] // 2, 2).mean((-3, -1))


def relu(xp: Any, x: Array) -> Array:
    """max(x, 0)."""
    if xp is torch:
        return torch.relu(x)
    import jax

    return jax.nn.relu(x)


def softmax(xp: Any, x: Array) -> Array:
    """Softmax along the last dim."""
    if xp is torch:
        return torch.softmax(x, -1)
    import jax

    return jax.nn.softmax(x, -1)


def layer_norm(xp: Any, x: Array, weight: Array, bias: Array) -> Array:
    """Layer normalisation along the last dim."""
    if xp is torch:
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias)
    centred = x - x.mean(-1, keepdims=True)
    return centred / xp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
