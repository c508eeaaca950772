"""What every Jacobian is compared with: one `torch.autograd.grad` call for each of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tests.conformance.problems import total
from torch import Tensor

Function = Callable[[list[Tensor]], tuple[Tensor, ...]]
Rows = list[list[Tensor]]


def loop_jacobian(f: Function, inputs: Sequence[Tensor], together: bool = False) -> Rows:
    """The Jacobian of ``f`` row by row: one `torch.autograd.grad` for each output element.

    Returns a tensor of shape output.shape + input.shape for each output and input. Where some outputs get no gradient
    but ``together``, each row has zeros as the cotangents of the others.
    """
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        outputs = f(leaves)
    return [
        loop_rows(output, leaves, [other for other in outputs if together and other is not output])
        for output in outputs
    ]


def loop_hessian(g: Callable[[list[Tensor]], Tensor], inputs: Sequence[Tensor]) -> Rows:
    """The Hessian of a scalar function row by row over its gradient."""
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        grads = torch.autograd.grad(g(leaves), leaves, create_graph=True, allow_unused=True)
        pairs = zip(grads, leaves, strict=True)
        filled = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in pairs]
    return [loop_rows(grad, leaves) for grad in filled]


def loop_rows(output: Tensor, leaves: Sequence[Tensor], others: Sequence[Tensor] = ()) -> list[Tensor]:
    """The rows of one output, stacked for each input; with zeros as the cotangents of others."""
    n = output.numel()
    jacobians = [torch.zeros(n, *leaf.shape, dtype=leaf.dtype) for leaf in leaves]
    for k in range(n if output.requires_grad and total(leaves) else 0):
        seed = torch.zeros(n, dtype=output.dtype)
        seed[k] = 1
        cotangents = [seed.reshape(output.shape), *map(torch.zeros_like, others)]
        row = torch.autograd.grad([output, *others], leaves, cotangents, retain_graph=True, allow_unused=True)
        for jacobian, part in zip(jacobians, row, strict=True):
            if part is not None:
                jacobian[k] = part.detach()
    return [
        jacobian.reshape(output.shape + leaf.shape) for jacobian, leaf in zip(jacobians, leaves, strict=True)
    ]
