"""What the cost rules ask of a tape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from .._blocks import cost
from .._blocks.traced import inside_functorch
from .._capture.tape import Node, Tape
from .._rules.links import is_opaque
from .._rules.unbatched import WRONG_TWICE, all_run_batched, engine_fails
from .progress import is_watched


def way(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> str:
    """How dense answers are found: by "rows" or "columns" of the identity, or by "structure".

    By structure where that can be cheaper, and where only the rules are right.
    """
    if engine_fails(tape.names):
        return "structure"
    rows = sum(map(prod, out_shapes))
    if rows <= 1 or is_small(tape, rows):
        return "rows"
    columns = sum([node.numbers for node in tape.inputs])
    few = cost.columns_pay(rows, columns, tape.numbers, len(tape.nodes))
    return "columns" if few and goes_in_columns(tape) else "structure"


def goes_in_columns(tape: Tape) -> bool:
    """Whether the graph of a tape's backward formulas is known to be right.

    It is not where an op has no rule or is a Python Function, which may leave PyTorch, nor where it is recorded
    itself: second derivatives of some formulas are wrong.
    """
    names = tape.names
    return (
        not torch.is_grad_enabled()
        and not inside_functorch()
        and names.isdisjoint(WRONG_TWICE)
        and all_run_batched(names)
        and not any(map(is_opaque, names))
        and not any(node.is_python or node.touches_complex for node in tape.nodes)
    )


def is_small(tape: Tape, rows: int) -> bool:
    """Whether all rows pass an average node faster than Python does."""
    return cost.is_small(rows, tape.numbers, len(tape.nodes))


def rows_at_once(nodes: Sequence[Node], rows: int) -> int:
    """How many rows to push at once through some nodes: fewer where someone watches the progress."""
    size = cost.rows_at_once(rows, max((node.numbers for node in nodes), default=1))
    return cost.rows_watched(size, rows, sum([node.numbers for node in nodes])) if is_watched() else size
