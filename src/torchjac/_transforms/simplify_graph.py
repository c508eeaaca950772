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

#: Ops that give what they are given in another shape, in row-major order.
RESHAPES = (
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.reshape.default,
)

#: Ops that give what they are given where it lies in memory as the result does.
_VIEWS = (
    *RESHAPES,
    torch.ops.aten.expand.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.as_strided.default,
)


def clean(graph: fx.GraphModule) -> None:
    """Take out of a graph what changes nothing, and what is there twice."""
    for node in list(graph.graph.nodes):
        if node.target in _ALIASES or (node.target in _VIEWS and _is_whole(node)):
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
        # Nobody writes into the copy, nor into what it copies.
        if op is torch.ops.aten.clone.default and _is_whole(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        if op is torch.ops.aten.view.default:
            # Some ops lay their results down otherwise than without values (sort of a transpose, torch 2.13).
            node.target = op = torch.ops.aten.reshape.default
        if op in RESHAPES and (given := node.args[0]).target in RESHAPES:
            node.args = (given.args[0], *node.args[1:])
            node.target = torch.ops.aten.reshape.default
        first = found.setdefault((node.target, _spelled(node.args), _spelled(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()


def _is_whole(node: fx.Node) -> bool:
    """Return whether an op gives a tensor that lies in memory as the one it is given."""
    given, made = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return bool(_lies(given) == _lies(made))


def _lies(tensor: torch.Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.is_conj(), tensor.is_neg()


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
