"""The order of a recorded graph in which the fewest loops stand apart from each other.

Inductor makes code of what stands between two calls of a library, and each piece of code takes the C++ compiler half a
second at least, if only to fill a tensor with zeros.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import fx

from .simplify_graph import base_of, looks, targets

_aten = torch.ops.aten

#: Ops that are calls of a library, or of PyTorch's own kernel
_CALLS = frozenset((
    _aten.mm.default, _aten.bmm.default, _aten.addmm.default, _aten.baddbmm.default,
    _aten.convolution.default, _aten.convolution_backward.default,
    _aten._cdist_forward.default, _aten._cdist_backward.default,
))  # fmt: skip


def group_loops(graph: fx.GraphModule) -> None:
    """Put each op as late as it can stand, and calls of libraries and other ops in as few runs as there can be.

    From the end on, all that may stand last is taken of one kind and then of the other: no order changes less often.
    """
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    before = _before(nodes)
    waiting = dict.fromkeys(nodes, 0)
    for node in chain.from_iterable(before.values()):
        waiting[node] += 1
    ready: dict[bool, list[fx.Node]] = {False: [], True: []}
    for node in nodes:
        if not waiting[node]:
            ready[_is_call(node)].append(node)
    kind, ordered = False, list[fx.Node]()
    while len(ordered) < len(nodes):
        if not ready[kind]:
            kind = not kind
        node = ready[kind].pop()
        ordered.append(node)
        for earlier in before[node]:
            waiting[earlier] -= 1
            if not waiting[earlier]:
                ready[kind if looks(earlier) else _is_call(earlier)].append(earlier)
    end = graph.graph.output_node()
    for node in reversed(ordered):
        end.prepend(node)
    graph.recompile()


def _is_call(node: fx.Node) -> bool:
    return node.target in _CALLS


def _before(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Return what has to stand before each op: its inputs, and what was done to memory that changes."""
    changing = {base_of(target) for node in nodes for target in targets(node)}
    last: dict[fx.Node, fx.Node] = {}
    found = {}
    for node in nodes:
        earlier = dict.fromkeys(given for given in node.all_input_nodes if given.op == "call_function")
        for base in {base_of(each) for each in (node, *node.all_input_nodes)} & changing:
            if base in last:
                earlier[last[base]] = None
            last[base] = node
        found[node] = list(earlier)
    return found
