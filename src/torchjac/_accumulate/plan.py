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
    if engine_fails(tape.names):
        return True
    rows = sum(map(prod, out_shapes))
    return rows > 1 and not is_small(tape, rows)


def is_small(tape: Tape, rows: int) -> bool:
    """Whether all rows pass an average node faster than Python does."""
    numbers = sum([node.numbers for node in tape.nodes])
    return cost.is_small(rows, numbers, len(tape.nodes))


def rows_at_once(nodes: Sequence[Node], rows: int) -> int:
    """How many rows to push at once through some nodes: fewer where someone watches the progress."""
    size = cost.rows_at_once(rows, max((node.numbers for node in nodes), default=1))
    return cost.rows_watched(size, rows, sum([node.numbers for node in nodes])) if is_watched() else size
