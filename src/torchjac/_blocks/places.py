"""Where numbers of a batch stand among others: a window on them where the places are affine, else a table."""

from __future__ import annotations

import torch
from torch import Tensor


class Places:
    """A table of positions; one that is affine is kept as its steps, and what stands there is seen, not copied."""

    def __init__(self, table: Tensor) -> None:
        self.shape = tuple(table.shape)
        self._first = int(table.reshape(-1)[0]) if table.numel() else 0
        self._steps = _steps(table)
        self._table = None if self._steps else table.contiguous()

    @property
    def nbytes(self) -> int:
        """The memory of the table."""
        return 0 if self._table is None else self._table.nbytes

    def read(self, rows: Tensor) -> Tensor:
        """Return what stands at the places along the first dim of a contiguous tensor."""
        if self._table is None:
            return self._window(rows)
        return rows[self._table] if rows.dim() > 1 else rows.take(self._table)

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Put values at the places along the first dim of a contiguous tensor."""
        if self._table is None:
            self._window(rows).copy_(values)
        else:
            rows[self._table] = values

    def _window(self, rows: Tensor) -> Tensor:
        inner = rows.shape[1:]
        steps = [step * inner.numel() for step in self._steps or ()]
        first = rows.storage_offset() + self._first * inner.numel()
        return rows.as_strided((*self.shape, *inner), [*steps, *rows.stride()[1:]], first)


def _steps(table: Tensor) -> list[int] | None:
    """Return the step along each dim of a table that is affine and never falls."""
    if not table.numel():
        return [0] * table.dim()
    first = table.reshape(-1)[0]
    affine, steps = first, []
    for dim, size in enumerate(table.shape):
        step = int(table.select(dim, min(1, size - 1)).reshape(-1)[0] - first)
        shape = [-1 if k == dim else 1 for k in range(table.dim())]
        affine = affine + torch.arange(size, device=table.device).view(shape) * step
        steps.append(step)
    return steps if min(steps, default=0) >= 0 and torch.equal(affine.expand_as(table), table) else None
