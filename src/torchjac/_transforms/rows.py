"""Some rows of a Jacobian, found by a walk that starts at those alone."""

from __future__ import annotations

from .._answers.bordered import stacked
from .._answers.operator import Jacobian
from .._capture.rows import rows_of
from .operators import operators
from .run import Recorded


def part_of(recorded: Recorded, number: int, rows: range) -> Recorded:
    """A recorded call as if it had returned some rows of one output only, cut into boxes; not beneath vmap."""
    captured = rows_of(recorded.captured, number, rows.start, rows.stop)
    return recorded._replace(captured=captured)


def jacobian_rows(recorded: Recorded, number: int, rows: range, what: str) -> list[Jacobian]:
    """The Jacobian of some rows of an output by each input, of output shape ``(len(rows),)``; f is not called.

    The rows are a range of the output's entries in row-major order, not an empty one.
    """
    found = operators(part_of(recorded, number, rows), what)
    return [stacked(parts) for parts in zip(*found, strict=True)]
