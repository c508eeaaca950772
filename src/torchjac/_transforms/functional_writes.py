"""Writes in a recorded graph, as ops that give what was to be written, where nothing else shares the memory.

Formulas of PyTorch's own write into what they have just made (``masked_fill_`` of a norm, ``squeeze_`` of a product).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from .._torch import OpOverload
from .simplify_graph import base_of, looks, targets

_aten = torch.ops.aten


def make_functional(graph: fx.GraphModule) -> None:
    """Replace each op that writes into memory of its own, of which there is no other view, by one that does not."""
    nodes = list(graph.graph.nodes)
    if not any(map(targets, nodes)):
        return
    number = {node: at for at, node in enumerate(nodes)}
    viewed = {base_of(node) for node in nodes if looks(node)}
    for node in nodes:
        written = targets(node)
        if len(written) != 1 or written[0] is not node.args[0] or written[0].op == "placeholder":
            continue
        (target,) = written
        turns = torch.Tag.inplace_view in node.target.tags
        if not turns and base_of(target) in viewed:
            continue
        with graph.graph.inserting_before(node):
            found = _functional(graph, node)
        if found is None or looks(found) is not turns:
            continue
        number[found] = number[node]
        for user in list(target.users):
            if user is not found and number[user] >= number[node]:
                user.replace_input_with(target, found)
        node.replace_all_uses_with(found)
        graph.graph.erase_node(node)


def _functional(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Add the op that gives what a node writes; None where there is none that gives it as it would lie there."""
    copies = node.target is _aten.copy_.default
    op = _aten.clone.default if copies else _without_underscore(node.target)
    args = (node.args[1],) if copies else node.args
    if op is None or not isinstance(args[0], fx.Node):
        return None
    given, kwargs = fx.node.map_arg((args, node.kwargs), lambda each: each.meta["val"])
    made = op(*given, **kwargs)
    if not isinstance(made, Tensor) or not _lie_alike(made, node.meta["val"]):
        return None
    found = graph.graph.call_function(op, args, node.kwargs)
    found.meta["val"] = made
    return found


def _without_underscore(op: Any) -> OpOverload | None:
    space, _, name = op._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None) if name.endswith("_") else None
    found: OpOverload | None = getattr(packet, op._overloadname, None)
    return found


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.stride(), one.dtype, one.device) == (
        other.shape, other.stride(), other.dtype, other.device
    )  # fmt: skip
