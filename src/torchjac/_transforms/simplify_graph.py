"""A recorded graph made short before a backend sees it: each op that is left costs milliseconds to compile."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import fx

from .._torch import OpOverload

#: Ops that give what they are given, and share its memory.
_ALIASES = (torch.ops.aten.detach.default, torch.ops.aten.alias.default, torch.ops.aten.lift_fresh.default)

#: Ops that give what they are given where the shape is that already.
_SHAPES = (
    torch.ops.aten.expand.default,
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.reshape.default,
)


def clean(graph: fx.GraphModule) -> None:
    """Take out of a graph what changes nothing, and what is there twice."""
    for node in list(graph.graph.nodes):
        if node.target in _ALIASES or (node.target in _SHAPES and _has_shape(node)):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    changing = {base_of(node) for node in written(graph)}
    found: dict[Hashable, fx.Node] = {}
    for node in list(graph.graph.nodes):
        op = node.target
        if not isinstance(op, OpOverload) or torch.Tag.nondeterministic_seeded in op.tags:
            continue
        if not changing.isdisjoint(map(base_of, (node, *node.all_input_nodes))):
            continue
        if op is torch.ops.aten.view.default:
            # Some ops lay their results down otherwise than without values (sort of a transpose, torch 2.13).
            node.target = torch.ops.aten.reshape.default
        first = found.setdefault((node.target, _spelled(node.args), _spelled(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()


def _has_shape(node: fx.Node) -> bool:
    """Return whether an op gives a tensor that lies in memory as the one it is given."""
    given, made = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return (given.shape, given.stride()) == (made.shape, made.stride())


def _spelled(tree: Any) -> Hashable:
    """Equal for arguments that are the same; numbers of two kinds are two."""
    if isinstance(tree, (tuple, list)):
        return tuple(map(_spelled, tree))
    if isinstance(tree, dict):
        return tuple([(name, _spelled(value)) for name, value in tree.items()])
    return tree if isinstance(tree, fx.Node) else (type(tree), repr(tree))


def written(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield what ops write into."""
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.native_batch_norm.default:  # does not say so
            yield from [statistic for statistic in node.args[3:5] if node.args[5] and statistic is not None]
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
                if (
                    argument.alias_info is not None
                    and argument.alias_info.is_write
                    and isinstance(value, fx.Node)
                ):
                    yield value


def base_of(node: fx.Node) -> fx.Node:
    """Return the node whose memory a node's result is a view of, or itself."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        target = node.target
        is_view = isinstance(target, OpOverload) and (target._schema.arguments[0].alias_info is not None)
        if not is_view and target is not operator.getitem:
            break
        node = node.args[0]
    return node
