"""The rows of a Jacobian as tasks for schedulers that hand out work: Dask, Ray, an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._answers.operator import Jacobian
from .._transforms.jacobian import jacobian
from .layout import rows_of


def row_tasks(
    func: Callable[..., Tensor], count: int, argnums: int = 0
) -> Callable[..., Iterator[tuple[range, Callable[[], Jacobian]]]]:
    """Return the Jacobian of a function in pieces that can be found anywhere: no process group is needed.

    Each task runs the function whole and differentiates its rows. It can be pickled if the function can (Dask and Ray
    pickle any), and gives a `Jacobian`, which can too; ``task().to_scipy()`` is its matrix.

    Args:
        func: as for `torchjac.jacobian`, with one output.
        count: how many tasks there are to be; fewer where the output's first dim is shorter.
        argnums: the argument to differentiate by, a tensor.

    Returns:
        A function of the same arguments that gives the rows, as positions along the output's first dim, and the task
        of each piece, one after the other.

    Raises:
        ValueError: if the output has no dims, or ``count`` is no positive int.

    Example:
        >>> import torch
        >>> from torchjac.distributed import row_tasks
        >>> for rows, task in row_tasks(lambda x: x[1:] * x[:-1], 2)(torch.arange(4.0)):
        ...     print(rows, task().to_dense().tolist())
        range(0, 2) [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0]]
        range(2, 3) [[0.0, 0.0, 3.0, 2.0]]
    """
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"row_tasks: count must be a positive int, got {count!r}")

    def tasks(*args: Any) -> Iterator[tuple[range, Callable[[], Jacobian]]]:
        with torch.no_grad():
            output = func(*args)
        if not isinstance(output, Tensor) or not output.dim():
            got = "a number" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"row_tasks: func must give one tensor that has rows to share out, got {got}")
        parts = [rows_of(len(output), number, count) for number in range(count)]
        return iter([(rows, partial(_rows, func, rows, argnums, args)) for rows in parts if rows])

    return tasks


def _rows(func: Callable[..., Tensor], rows: range, argnums: int, args: tuple[Any, ...]) -> Jacobian:
    found: Jacobian = jacobian(lambda *args: func(*args)[rows.start : rows.stop], argnums)(*args)
    return found.detach()
