"""A sparse matrix before it has values: where these stand, how they are made of blocks, and the matrix with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

# It is PyTorch's own way to key by a tensor that may go (torch 2.9-2.13).
from torch.utils.weak import WeakTensorKeyDictionary

from .._blocks.block import Block, TensorOptions
from .._blocks.maps import Label
from .._blocks.tracing import inside_functorch
from .assembly import Assembled, not_held
from .csr import csr_tensor, hear_warning


class SparseParts(NamedTuple):
    """A sparse matrix before it is assembled: index tensors as its layout wants them, and the values."""

    layout: torch.layout
    places: tuple[Tensor, ...]
    values: Tensor
    size: tuple[int, int]

    def tensor(self) -> Tensor:
        """Return the matrix."""
        layout, places, values, size = self
        if layout is torch.sparse_coo:
            index = places[0]
            return torch.sparse_coo_tensor(
                index, values, size, device=values.device, is_coalesced=True, check_invariants=False
            )
        begin, index = places
        if layout is torch.sparse_csr:
            return csr_tensor(begin, index, values, size)
        hear_warning()
        make = torch.sparse_bsr_tensor if layout is torch.sparse_bsr else torch.sparse_csc_tensor
        return make(begin, index, values, size, device=values.device, check_invariants=False)


in_parts: ContextVar[bool] = ContextVar("torchjac_sparse_in_parts", default=False)


@contextmanager
def kept_in_parts() -> Iterator[None]:
    """Give parts instead of sparse matrices: tracers know none, so a captured program assembles them at its end."""
    token = in_parts.set(True)
    try:
        yield
    finally:
        in_parts.reset(token)


#: What the sparse matrices were made by that a Jacobian may be written into again.
made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _no_values() -> Tensor:
    """Stand for values in a frame, which has none."""
    return torch.empty(0, device="cpu")


class Frame:
    """A sparse matrix without its values, and how these are made of blocks: the same for all of one make.

    ``spelled`` has for each block the labels of its value, and all of its labels as they are spelled.
    """

    def __init__(
        self,
        found: Assembled,
        spelled: Sequence[tuple[tuple[Label, ...], tuple[Label, ...]]],
        like: TensorOptions,
        layout: torch.layout,
        cut_off: bool,
    ) -> None:
        self.found = found._replace(fill=_no_values, held=not_held, blocks=())
        self.dtype, self.device, self.layout = like.dtype, like.device, layout
        self._spelled, self._cut_off = spelled, cut_off

    @property
    def nbytes(self) -> int:
        """The memory of what is kept."""
        return 0 if self.found.pattern is None else self.found.pattern.nbytes

    def values(self, *values: Tensor | float) -> Tensor:
        """Return the values of the matrix for those of other blocks of this make."""
        assert self.found.pattern is not None
        blocks = [Block(value, on, (), ()) for value, (on, _) in zip(values, self._spelled, strict=True)]
        return self.found.finish(
            self.found.pattern.fill(blocks, self, over=[over for _, over in self._spelled])
        )

    def matrix(self, values: Tensor, what: str, index_dtype: torch.dtype = torch.int64) -> Any:
        """Return the matrix with some values, its index tensors the caller's own."""
        found, layout = self.found, self.layout
        size = found.size if layout is not torch.sparse_csc else found.size[::-1]
        _check_index(index_dtype, layout, max(*size, values.numel()), what)
        if layout is torch.sparse_coo:
            places: tuple[Tensor, ...] = (torch.stack([found.row().long(), found.column.long()]),)
        else:
            places = tuple([found.handed_out(kept, index_dtype) for kept in (found.begin, found.column)])
        parts = SparseParts(layout, places, values, size)
        if in_parts.get():
            return parts
        matrix = parts.tensor()
        if found.pattern is not None and not self._cut_off and not inside_functorch():
            made[matrix] = found.pattern
        return matrix


def _check_index(index_dtype: torch.dtype, layout: torch.layout, largest: int, what: str) -> None:
    if index_dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{what}: index_dtype must be torch.int32 or torch.int64, got {index_dtype!r}")
    if index_dtype is torch.int64:
        return
    if layout is torch.sparse_coo:
        raise ValueError(
            f"{what}: sparse_coo has int64 indices only; take sparse_csr or sparse_csc for int32"
        )
    if largest >= 2**31:
        raise ValueError(f"{what}: int32 cannot count to {largest:,}; use index_dtype=torch.int64")
