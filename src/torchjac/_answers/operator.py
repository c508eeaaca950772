"""The Jacobian as an operator: its blocks, what they hold, and the tensors they can be written as."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._accumulate.report import Report
from .._blocks.block import Block, entries, is_dense, stored
from .._blocks.coordinates import coordinates, covers_once
from .._blocks.write import dense


@dataclass(frozen=True, eq=False)
class Jacobian:
    """∂output/∂input of shape ``output.shape + input.shape``, kept as the sum of its blocks.

    Attributes:
        out_shape: shape of the output.
        in_shape: shape of the input.
        dtype: dtype of the input.
        device: device of the input.
        blocks: the terms of the sum; each holds a small value tensor and the maps that say where it stands.
        report: how they were found, node by node.
    """

    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    blocks: tuple[Block, ...]
    report: Report = field(default_factory=Report, repr=False)

    @property
    def shape(self) -> torch.Size:
        """``output.shape + input.shape``."""
        return torch.Size((*self.out_shape, *self.in_shape))

    @property
    def stored(self) -> int:
        """How many numbers the blocks hold, index tensors included."""
        return sum(map(stored, self.blocks))

    @cached_property
    def nnz(self) -> int:
        """How many entries are not zero by structure: no value is looked at."""
        if len(self.blocks) == 1 and covers_once(self.blocks[0], self.shape):
            return entries(self.blocks[0])
        return coordinates(self.blocks, self.shape, self._like())[0].numel()

    def to_dense(self) -> Tensor:
        """The Jacobian as a dense tensor; costs the writing of ``shape.numel()`` numbers."""
        whole = dense(list(self.blocks), self.out_shape, self.in_shape, self._like())
        # A block that covers everything is its own dense tensor; what is handed out must be the caller's alone.
        return whole.clone() if len(self.blocks) == 1 and is_dense(self.blocks[0], self.shape) else whole

    def to_sparse(self, layout: torch.layout = torch.sparse_coo) -> Tensor:
        """The Jacobian as a sparse matrix of shape (output.numel(), input.numel()).

        Entries that are zero by structure are left out, duplicates are summed and indices are sorted.

        Raises:
            ValueError: if the layout is none of ``torch.sparse_coo``, ``sparse_csr`` and ``sparse_csc``.
        """
        at, values = coordinates(self.blocks, self.shape, self._like())
        rows, columns = prod(self.out_shape), prod(self.in_shape)
        index = torch.stack([at // max(columns, 1), at % max(columns, 1)])
        matrix = torch.sparse_coo_tensor(index, values, (rows, columns), is_coalesced=True, check_invariants=False)
        if layout is torch.sparse_coo:
            return matrix
        if layout is torch.sparse_csr:
            return matrix.to_sparse_csr()
        if layout is torch.sparse_csc:
            return matrix.to_sparse_csc()
        raise ValueError(f"to_sparse: layout must be torch.sparse_coo, sparse_csr or sparse_csc, got {layout}")

    def spy(self, ax: Any = None) -> Any:
        """Draw where entries stand on matplotlib axes (new ones if none are given) and return the axes.

        Up to 500 rows and columns each cell is one entry; beyond, a cell is a bin, darker where it is fuller.
        """
        from matplotlib import pyplot

        if ax is None:
            ax = pyplot.figure().add_subplot()
        rows, columns = prod(self.out_shape), prod(self.in_shape)
        at, _ = coordinates(self.blocks, self.shape, self._like())
        step = max(1, -(-max(rows, columns) // 500))
        height, width = -(-rows // step), -(-columns // step)
        cell = (at // max(columns, 1) // step) * width + at % max(columns, 1) // step
        fill = torch.bincount(cell.cpu(), minlength=height * width).view(height, width).double()
        ax.imshow((fill / step**2).sqrt(), cmap="Greys", aspect="equal", extent=(0, columns, rows, 0), vmin=0)
        ax.set_xlabel(f"input {tuple(self.in_shape)}")
        ax.set_ylabel(f"output {tuple(self.out_shape)}")
        ax.set_title(f"{self.nnz:,} nonzeros, {self.stored:,} numbers stored")
        return ax

    def __repr__(self) -> str:
        """Shape, structure and size at a glance."""
        size = self.shape.numel()
        filled = f" ({self.nnz / size:.2g} of {size:,})" if size else ""
        return (
            f"Jacobian(shape={tuple(self.out_shape)}+{tuple(self.in_shape)}, nnz={self.nnz:,}{filled}, "
            f"blocks={len(self.blocks)}, stored={self.stored:,}, dtype={self.dtype})"
        )

    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)
