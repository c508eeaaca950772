"""Numbers in a recorded graph: the coefficients of a stencil depend on no input."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, fx

from .._torch import OpOverload
from .op_recording import own_outputs

_MUL = torch.ops.aten.mul.Tensor


def take_out_numbers(
    graph: fx.GraphModule, outputs: list[Tensor], allowed: AbstractSet[int]
) -> list[int | float]:
    """Remove from a graph those outputs that are the same number whatever its inputs are.

    Gives for each output its place among those that are left, or its number. Only outputs that are ``allowed``
    are looked at.
    """
    end = graph.graph.output_node()
    given: list[fx.Node] = list(end.args[0])  # type: ignore[arg-type]
    known = _known(graph)
    at: list[int | float] = []
    kept: list[int] = []
    for number, node in enumerate(given):
        if number in allowed and node in known:
            at.append(float(known[node]))
        else:
            at.append(len(kept))
            kept.append(number)
    end.args = (tuple([given[number] for number in kept]),)
    outputs[:] = [outputs[number] for number in kept]
    _multiply_by(known, graph)
    own_outputs(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return at


def _multiply_by(known: dict[fx.Node, Tensor], graph: fx.GraphModule) -> None:
    """Multiply by a number where a tensor is multiplied with one of its dtype that is known; not at all by 1."""
    for node in graph.graph.find_nodes(op="call_function", target=_MUL):
        left, right = node.args
        if left in known:
            left, right = right, left
        if not isinstance(left, fx.Node) or left in known or right not in known:
            continue
        if left.meta["val"].dtype is not known[right].dtype:
            continue
        number = float(known[right])
        if number == 1.0:
            node.replace_all_uses_with(left)
        else:
            node.args = left, number


def _known(graph: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Return what can be told of tensors without dims: those made of numbers and of each other."""
    known: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        op = node.target
        if node.op != "call_function" or not isinstance(op, OpOverload):
            continue
        if op._schema.is_mutable:  # any tensor might be a view of what it writes into
            return {}
        made = node.meta.get("val")
        if not isinstance(made, Tensor) or made.dim() or torch.Tag.nondeterministic_seeded in op.tags:
            continue
        if not made.is_floating_point():
            continue
        if all(each in known for each in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = op(*args, **kwargs)
    return known
