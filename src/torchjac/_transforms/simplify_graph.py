"""A recorded graph made short before a backend sees it: each op that is left costs milliseconds to compile."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator
from itertools import chain
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
        first = found.setdefault((node.target, spelled(node.args), spelled(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)
    erase_unread(graph)


def erase_unread(graph: fx.GraphModule) -> None:
    """Erase the ops that no output needs, writes into memory of their own among them."""
    writes: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        for target in targets(node):
            writes.setdefault(base_of(target), []).append(node)
    needed: set[fx.Node] = set()
    stack = [node for node in graph.graph.nodes if node.op != "call_function"]
    stack += [node for node in graph.graph.nodes if node.is_impure() and not targets(node)]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += [*node.all_input_nodes, *writes.get(base_of(node), ())]
    for node in reversed(graph.graph.nodes):
        if node not in needed:
            graph.graph.erase_node(node)


def _is_whole(node: fx.Node) -> bool:
    """Return whether an op gives a tensor that lies in memory as the one it is given."""
    given, made = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return bool(_lies(given) == _lies(made))


def _lies(tensor: torch.Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.is_conj(), tensor.is_neg()


def spelled(tree: Any) -> Hashable:
    """Equal for arguments that are the same; numbers of two kinds are two."""
    if isinstance(tree, (tuple, list)):
        return tuple(map(spelled, tree))
    if isinstance(tree, dict):
        return tuple([(name, spelled(value)) for name, value in tree.items()])
    return tree if isinstance(tree, fx.Node) else (type(tree), repr(tree))


def written(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield what ops write into."""
    return chain.from_iterable(map(targets, graph.graph.nodes))


def targets(node: fx.Node) -> list[fx.Node]:
    """Return what an op writes into."""
    found: list[Any] = []
    if node.target is torch.ops.aten.native_batch_norm.default:  # does not say so
        found += [statistic for statistic in node.args[3:5] if node.args[5]]
    if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
        arguments = zip(node.target._schema.arguments, node.args, strict=False)
        found += [value for argument, value in arguments if _is_written(argument)]
    return [target for target in found if isinstance(target, fx.Node)]


def base_of(node: fx.Node) -> fx.Node:
    """Return the node whose memory a node's result is a view of, or itself."""
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        if not looks(node) and node.args[0] not in targets(node):
            break
        node = node.args[0]
    return node


def looks(node: fx.Node) -> bool:
    """Return whether an op gives a view of what it is given, or a part of a tuple."""
    if isinstance(node.target, OpOverload):
        given = node.target._schema.arguments
        return bool(given) and given[0].alias_info is not None and not _is_written(given[0])
    return node.target is operator.getitem


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)
