"""The number of ops that a part of a trace leaves to compile: each takes a backend milliseconds."""

from __future__ import annotations

from collections.abc import Hashable

from torch import fx

from .._torch import FakeTensorMode, tracer_mode
from .simplify_graph import looks, spelled

#: The microseconds that a backend takes to compile an op, and the runs that a compiled program is taken to have
COMPILED_OP, COMPILED_RUNS = 1e4, 1000

#: A program that is compiled instead has at most this part of the ops, and this many fewer if it runs longer: a smaller
#: gain is lost in the time that any program takes to compile
SHORTER, FEWER = 0.5, 60


class ManySizes(FakeTensorMode):
    """The mode of a recording that is to hold for other sizes too: no size may decide which ops are recorded."""


def last_op() -> fx.Node | None:
    """Return the op that a trace recorded last, None where there is no trace, or one for other sizes too."""
    fake, proxy = tracer_mode("FAKE"), tracer_mode("PROXY")
    if proxy is None or type(fake) is not FakeTensorMode:
        return None
    last: fx.Node = proxy.tracer.graph._root.prev
    return last


def count_ops(after: fx.Node, last: fx.Node | None) -> int:
    """Return the number of ops after one and up to another, each counted once, without views."""
    first: dict[Hashable, fx.Node] = {}
    same: dict[fx.Node, fx.Node] = {}
    count = 0
    node = after
    while node is not last:
        node = node.next
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: same.get(arg, arg))
        found = first.setdefault((node.target, spelled(args), spelled(kwargs)), node)
        same[node] = found
        count += found is node and node.op == "call_function" and not looks(node)
    return count


def ops_pay(ops: int, others: int, slower: float) -> bool:
    """Return whether a program of other ops is better compiled, though each run takes some microseconds longer.

    The first call is then about the one of `torch.compile`, whose rows run as long.
    """
    fewer = ops - others
    return (
        others <= SHORTER * ops
        and fewer >= (FEWER if slower > 0 else 1)
        and COMPILED_OP * fewer > COMPILED_RUNS * slower
    )
