"""Which way a dense answer is found: by structure, or by PyTorch's engine on dense rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .._capture.tape import Node, Tape
from .._rules.unbatched import engine_fails

#: The structured walk costs some 20 µs more of Python for each node than the engine under vmap; in that time
#: the engine moves about this many numbers. Below it, on average, structure cannot win back what it costs.
FREE_NUMBERS = 5000

#: How many bytes of cotangents may be alive at once in one batched call.
ROW_BYTES = 256 << 20


def structure_pays(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Whether walking by structure can be cheaper than dense rows: never for one row, never for tiny ones.

    Where only the rules are right, it always pays.
    """
    if any(map(engine_fails, tape.nodes)):
        return True
    rows = sum(map(prod, out_shapes))
    if rows <= 1:
        return False
    return rows * sum(map(_width, tape.nodes)) > FREE_NUMBERS * len(tape.nodes)


def rows_at_once(nodes: Sequence[Node], rows: int) -> int:
    """How many rows fit the memory budget: the widest node and its neighbours are alive together."""
    widest = max((_width(node) for node in nodes), default=1)
    return max(1, min(rows, ROW_BYTES // max(1, 4 * 8 * widest)))


def _width(node: Node) -> int:
    return sum(prod(meta.shape) for meta in node.outputs)
