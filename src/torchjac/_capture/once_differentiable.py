"""Functions marked `once_differentiable`: their backward leaves no graph, so a second derivative is refused.

PyTorch's engine refuses it only where the cotangent itself asks for gradients, which rows of the identity do
not; without more, what such a backward depends on would be taken for constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, once_differentiable

from .tape import Node, Tape

# A function that the decorator made shares its code with every other: nothing else tells (torch 2.9-2.13).
_MARKED = once_differentiable(lambda ctx: None).__code__


def once_pairs(tape: Tape) -> dict[tuple[int, int], str]:
    """Return the (output, input) pairs with such a Function between them, and its name."""
    marked = [node for node in tape.nodes if _is_marked(node)]
    if not marked:
        return {}
    above: dict[Node, set[int]] = {}
    for number, end in enumerate(tape.outputs):
        if end is not None:
            above.setdefault(end[0], set()).add(number)
    for node in tape.nodes:
        for edge in node.inputs:
            if edge is not None:
                above.setdefault(edge[0], set()).update(above.get(node, ()))
    below: dict[Node, set[int]] = {node: {number} for node, number in tape.inputs.items()}
    for node in reversed(tape.nodes):
        for edge in node.inputs:
            if edge is not None:
                below.setdefault(node, set()).update(below.get(edge[0], ()))
    return {
        (output, number): node.name.removesuffix("Backward")
        for node in marked
        for output in above.get(node, ())
        for number in below[node]
    }


def _is_marked(node: Node) -> bool:
    if not isinstance(node.fn, BackwardCFunction):
        return False
    backward = getattr(node.fn._forward_cls, "backward", None)  # type: ignore[attr-defined]  # not in its stub
    inner = [cell.cell_contents for cell in getattr(backward, "__closure__", None) or ()]
    # Inside functorch the node belongs to a Function made around the user's, which is in its closure.
    made = [getattr(found, "backward", None) for found in inner if isinstance(found, type)]
    return any(getattr(found, "__code__", None) is _MARKED for found in (backward, *made))


class Once(torch.autograd.Function):
    """A tensor that cannot be differentiated again; its sources are inputs, so that the way leads here."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, tensor: Tensor, *sources: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the name of the Function to blame."""
        ctx.blamed = inputs[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        """Refuse."""
        raise RuntimeError(_refusal(ctx.blamed))

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        """Refuse."""
        raise RuntimeError(_refusal(ctx.blamed))


def only_once(name: str, tensor: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """Return the tensor, with a graph that refuses to be differentiated with respect to the sources."""
    marked: Tensor = Once.apply(name, tensor, *sources)  # type: ignore[no-untyped-call]
    return marked


def _refusal(name: str) -> str:
    return (
        f"trying to differentiate twice a function that was marked with @once_differentiable: {name}; "
        "its backward would have to be made of differentiable ops, without the mark"
    )
