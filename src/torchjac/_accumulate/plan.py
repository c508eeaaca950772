"""What the cost rules ask of a tape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .._blocks import cost
from .._capture.tape import Node, Tape
from .._rules.unbatched import engine_fails
from .progress import is_watched


def structure_pays(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> bool:
    """Whether to walk by structure: where that can be cheaper, and where only the rules are right."""
    nodes = tape.nodes
    if engine_fails({node.name for node in nodes}):
        return True
    return cost.walk_pays(sum(map(prod, out_shapes)), sum([node.numbers for node in nodes]), len(nodes))


def rows_at_once(nodes: Sequence[Node], rows: int) -> int:
    """How many rows to push at once through some nodes: fewer where someone watches the progress."""
    size = cost.rows_at_once(rows, max((node.numbers for node in nodes), default=1))
    return cost.rows_watched(size, rows, sum([node.numbers for node in nodes])) if is_watched() else size
