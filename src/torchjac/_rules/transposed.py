"""Nodes whose transposed local Jacobian is that of an op too: tangents pass it as cotangents, with no graph made.

Softmax is one of them as it stands, Jᵀ = J. Of a convolution, linear in its input, it is the convolution itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._capture.tape import Meta, Node, Tape, node_of
from .._plan.price import LAUNCH
from .._plan.recording import objects, unrecorded

#: Those with symmetric local Jacobians
SYMMETRIC = ("SoftmaxBackward0", "SafeSoftmaxBackward0")


def transposed(node: Node, k: int) -> Tape | None:
    """Return the tape from a cotangent of the only output of a node to that of its k-th input, each a node's output.

    None where there is no op for it.
    """
    if node.name in SYMMETRIC:
        name, fn = node.name, node.fn
    elif node.name == "ConvolutionBackward0" and k == 0:
        name = "ConvolutionBackwardBackward0"
        with unrecorded():
            (fn,) = made = _convolution(node)
        objects(_convolution, (node,), made, LAUNCH)
    else:
        return None
    cotangent = node.unbound()
    found = node_of(name, fn, (node.into(k),), ((cotangent, 0),))
    return Tape([found], [(found, 0)], {cotangent: 0}, False)


def _convolution(node: Node) -> list[Any]:
    return [_Convolution(node.fn, node.outputs[0], node.into(0))]


class _Convolution:
    """A convolution as a function of its input, in the place of the backward of its backward."""

    def __init__(self, fn: Any, out: Meta, into: Meta) -> None:
        self.fn = fn
        # Of these the shape alone is read.
        self._saved_grad_output, self._saved_input = (
            torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in (out, into)
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_saved_"):
            raise AttributeError(name)
        return getattr(self.fn, name)

    def __call__(self, images: Tensor) -> Tensor:
        names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
        weight, *geometry = (getattr(self.fn, "_saved_" + name) for name in ("weight", *names))
        return torch.convolution(images, weight, None, *geometry)
