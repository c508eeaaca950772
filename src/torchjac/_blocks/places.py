"""Where numbers of a batch stand among others: a window on them where the places are affine, else a table."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from .sort_entries import narrow


class Places:
    """A table of positions; one that is affine is kept as its steps, and what stands there is seen, not copied.

    Where there are but ``size`` numbers, a position past them is read as zero.
    """

    def __init__(self, table: Tensor, size: int | None = None) -> None:
        self.shape = tuple(table.shape)
        self._first = int(table.reshape(-1)[0]) if table.numel() else 0
        flat = table.reshape(-1)
        self._full = None if size is None or bool((flat < size).all()) else (flat < size).nonzero()[:, 0]
        self._steps = _steps(table) if self._full is None else None
        table = flat if self._full is None else flat[self._full]
        self._table = None if self._steps else table.to(narrow(int(table.max()) if table.numel() else 0))

    @property
    def nbytes(self) -> int:
        """The memory of the tables."""
        return sum(table.nbytes for table in (self._table, self._full) if table is not None)

    def read(self, rows: Tensor) -> Tensor:
        """Return what stands at the places along the first dim of a contiguous tensor."""
        if self._table is None:
            return self._window(rows)
        found = rows.index_select(0, self._table)
        if self._full is not None:
            found = rows.new_zeros(prod(self.shape), *rows.shape[1:]).index_copy_(0, self._full, found)
        return found.view(*self.shape, *rows.shape[1:])

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Put values at the places along the first dim of a contiguous tensor."""
        if self._table is None:
            self._window(rows).copy_(values)
        else:
            rows.index_copy_(0, self._table.long(), values.reshape(-1, *rows.shape[1:]))

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
        affine = affine + torch.arange(size, dtype=table.dtype, device=table.device).view(shape) * step
        steps.append(step)
    return steps if min(steps, default=0) >= 0 and torch.equal(affine.expand_as(table), table) else None
