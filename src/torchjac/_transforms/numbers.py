"""Numbers among the outputs of a recorded graph: the coefficients of a stencil depend on no input."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, fx

from .record import Recording


def take_out_numbers(recording: Recording, allowed: AbstractSet[int]) -> list[int | float]:
    """Remove from a graph those outputs that are the same number whatever its inputs are.

    Gives for each output its place among those that are left, or its number. Only outputs that are ``allowed``
    are looked at.
    """
    end = recording.graph.graph.output_node()
    given: list[fx.Node] = list(end.args[0])  # type: ignore[arg-type]
    known = _known(recording.graph) if allowed else {}
    at: list[int | float] = []
    kept: list[int] = []
    for number, node in enumerate(given):
        if number in allowed and node in known:
            at.append(float(known[node]))
        else:
            at.append(len(kept))
            kept.append(number)
    if len(kept) < len(given):
        end.args = (tuple([given[number] for number in kept]),)
        recording.outputs[:] = [recording.outputs[number] for number in kept]
        recording.graph.graph.eliminate_dead_code()
        recording.graph.recompile()
    return at


def _known(graph: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """What can be told of tensors without dims: those made of numbers and of each other."""
    known: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        op = node.target
        if node.op != "call_function" or not isinstance(op, torch._ops.OpOverload):
            continue
        if op._schema.is_mutable:  # any tensor might be a view of what it writes into
            return {}
        made = node.meta.get("val")
        if not isinstance(made, Tensor) or made.dim() or torch.Tag.nondeterministic_seeded in op.tags:
            continue
        if all(each in known for each in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = op(*args, **kwargs)
    return known
