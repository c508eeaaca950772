"""pieces: a Jacobian by ranges of its rows, each found by itself within a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._answers.operator import Jacobian
from .._capture.state import undisturbed
from .arguments import unflatten
from .call_function import Recorded, check_function, record
from .dynamo import seen_by_tracers
from .memory import bytes_of, check_within, within
from .row_ranges import jacobian_rows


def pieces(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, memory: int | str = "1 GB"
) -> Callable[..., Iterator[tuple[range, Any]]]:
    """Compute the Jacobian of ``func`` in pieces, for one that is larger than memory: an iterator over ranges of rows.

    ``func`` runs once, when the function returned is called, and its graph is kept. For each range of the output's
    entries, in row-major order, the walk starts at those rows only. The ranges follow each other and have as many rows
    as fit the budget: all of them at once, where the structure of the Jacobian allows it.

    Args:
        func: as for `jacobian`, with one tensor as its output.
        argnums: as for `jacobian`.
        memory: a budget, in bytes or as "500 MB", for all that is alive at once beside what ``func`` itself keeps. A
            loop still holds one piece while the next is found, so each takes half of it at most.

    Returns:
        A function of the same arguments, which gives pairs ``(rows, J)``: a range, and the `Jacobian` of these rows,
        of output shape ``(len(rows),)``, or a tree of them like the differentiated argument.

    Raises:
        MemoryError: if a single row needs more than half of ``memory``.
        RuntimeError: as `jacobian` does; inside a torch.func transform; where gradients of the answer are asked for.
        TypeError: if ``func`` is not callable, or ``memory`` is neither an int nor a string.
        ValueError: as `jacobian` does; if ``memory`` is not positive; if ``func`` has several outputs.

    Example:
        >>> import torch
        >>> from torchjac import pieces
        >>> mix = torch.linspace(-1, 1, 500 * 500).view(500, 500)
        >>> square, found = 0.0, 0
        >>> for rows, J in pieces(lambda x: torch.softmax(mix @ x, 0), memory="300 kB")(torch.zeros(500)):
        ...     square += J.to_dense().square().sum()
        ...     found += len(rows)
        >>> found, square.sqrt()
        (500, ...)
    """
    check_function(func, argnums, None, "pieces")
    most = bytes_of(memory, "pieces") // 2

    def pieces_of(*args: Any, **kwargs: Any) -> Iterator[tuple[range, Any]]:
        with undisturbed():
            recorded = record("pieces", func, argnums, False, args, kwargs)
        check_within(recorded, "pieces")
        if len(recorded.shapes) != 1:
            raise ValueError(
                f"pieces: func must return one tensor, whose rows are taken in order, got {len(recorded.shapes)}; "
                "join them, as by torch.cat, or call pieces for each"
            )
        return _pieces(recorded, most)

    return seen_by_tracers("pieces", func, pieces_of)


def _pieces(recorded: Recorded, most: int) -> Iterator[tuple[range, Any]]:
    def find(rows: range) -> list[Jacobian]:
        return jacobian_rows(recorded, 0, rows, "pieces")

    for rows, found in within(find, recorded.shapes[0], most, "pieces"):
        yield rows, unflatten(found, recorded.in_spec)
