"""The cotangent of a convolution's input, by a convolution: where the window moves by one it is one of its own.

oneDNN's kernel for it takes up to ten times as long on many small images (float32 on a processor, torch 2.9-2.14).
For many images of a few pixels the convolution is a matrix, and a product with it takes half of the time, or less.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .._blocks.tracing import has_finite_sum, inside_functorch, is_tracing
from .._capture.tape import Node
from .._plan.price import MULTIPLIED, NUMBER
from .conv_geometry import by_dim


def image_cotangents(node: Node, images: Tensor) -> Tensor:
    """Return the cotangents of a convolution's input for as many images as there are.

    A zero of the matrix would meet what is infinite; the formula's windows lie elsewhere.
    """
    if matrix_pays(node, images):
        shape = node.shape[1:]
        rows = prod(shape)
        eye = torch.eye(rows, dtype=images.dtype, device=images.device).view(rows, *shape)
        found = torch.matmul(images.flatten(1), _by_formula(node, eye).flatten(1))
        if has_finite_sum(found):
            return found.view(len(images), *node.into(0).shape[1:])
    return _by_formula(node, images)


def matrix_pays(node: Node, images: Tensor) -> bool:
    """Return whether a convolution is formed as a matrix, from the rows of one image, and multiplied by all images."""
    if images.device.type != "cpu" or torch.is_grad_enabled() or inside_functorch() or is_tracing():
        return False
    window, groups = prod(node.saved("weight").shape[1:]), node.saved("groups")
    rows, columns = prod(node.shape[1:]), prod(node.into(0).shape[1:])
    coarse, channels = (columns, node.into(0).shape[1]) if node.saved("transposed") else (rows, node.shape[1])
    # As a convolution is priced: each number of the coarse image meets a window, and windows are laid out.
    each: float = MULTIPLIED * coarse * window + NUMBER * (coarse // max(channels, 1)) * window * groups
    return len(images) * (each - MULTIPLIED * rows * columns) > rows * each


def _by_formula(node: Node, images: Tensor) -> Tensor:
    """Return the cotangents by PyTorch's own formula."""
    weight, (_, *size) = node.saved("weight"), node.into(0).shape
    names = ("stride", "padding", "dilation", "output_padding")
    stride, padding, dilation, more = by_dim(node, weight.dim() - 2, *names)
    # Of the input only the shape is asked for.
    like = torch.zeros((), dtype=images.dtype, device=images.device).expand(len(images), *size)
    found: Tensor = torch.ops.aten.convolution_backward.default(
        images, like, weight, None, stride, padding, dilation, node.saved("transposed"), more,
        node.saved("groups"), [True, False, False],
    )[0]  # fmt: skip
    return found


def is_direct(node: Node) -> bool:
    """Return whether `input_cotangent` is a gain, but for paddings that are wider than the kernel."""
    _, dtype, device = node.outputs[0]
    return (
        dtype is torch.float32
        and device.type == "cpu"
        and not node.saved("transposed")
        and all(step == 1 for step in node.saved("stride"))
    )


def input_cotangent(node: Node, cotangent: Tensor) -> Tensor | None:
    """Convolve a cotangent, and any dims in front of its own, with the weight turned round; None where it is no gain.

    gx[b,i,at] = Σ weight[c,i,k] g[b,c,at + p − d·k]
    """
    if not is_direct(node):
        return None
    weight, groups = node.saved("weight"), node.saved("groups")
    rank = weight.dim() - 2
    dilation, padding = by_dim(node, rank, "dilation", "padding")
    margin = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    if min(margin) < 0:
        return None
    turned = weight.unflatten(0, (groups, weight.shape[0] // groups)).transpose(1, 2).flatten(0, 1)
    turned = turned.flip(list(range(2, 2 + rank)))
    lead = cotangent.shape[: cotangent.dim() - len(node.shape)]
    images = cotangent.flatten(0, len(lead))
    found = torch.convolution(images, turned, None, [1] * rank, margin, dilation, False, [0] * rank, groups)
    return found.reshape(*lead, *node.into(0).shape)
