"""The Jacobian as a sparse matrix of PyTorch or SciPy, one row for each entry of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

# It is PyTorch's own way to key by a tensor that may go (torch 2.9-2.13).
from torch.utils.weak import WeakTensorKeyDictionary

from .._blocks.block import Block, Kind
from .._blocks.block_views import in_triangle, side_of_diagonal, swapped
from .._blocks.domain import inside
from .._blocks.pattern import Pattern
from .._blocks.pattern_cache import pattern_of
from .._blocks.tracing import inside_functorch, is_known
from .assembly import Assembled, by_layout, pointers
from .bsr import block_size, blocked, refill_blocks
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
            return torch.sparse_coo_tensor(index, values, size, is_coalesced=True, check_invariants=False)
        begin, index = places
        if layout is torch.sparse_csr:
            return csr_tensor(begin, index, values, size)
        hear_warning()
        make = torch.sparse_bsr_tensor if layout is torch.sparse_bsr else torch.sparse_csc_tensor
        return make(begin, index, values, size, check_invariants=False)


_in_parts: ContextVar[bool] = ContextVar("torchjac_sparse_in_parts", default=False)


@contextmanager
def kept_in_parts() -> Iterator[None]:
    """Give parts instead of sparse matrices: tracers know none, so a captured program assembles them at its end."""
    token = _in_parts.set(True)
    try:
        yield
    finally:
        _in_parts.reset(token)


#: What the sparse matrices were made by that a Jacobian may be written into again.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def sparse_tensor(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: Kind,
    layout: torch.layout,
    what: str,
    index_dtype: torch.dtype = torch.int64,
    triangle: str | None = None,
) -> Any:
    """Return a sparse matrix of the sum of blocks, or of a triangle of it; its indices are sorted.

    Blocks on the other side of the diagonal are left out as they are; what lies on both is cut. In BSR there is a small
    matrix for each pair of positions of the first dims that has an entry.

    Raises:
        ValueError: if the layout is not sparse, or cannot have such indices or a triangle, or there is no such one.
        RuntimeError: inside a transform that has no tensors of this layout.
    """
    if layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr):
        raise ValueError(
            f"{what}: layout must be torch.sparse_coo, sparse_csr, sparse_csc or sparse_bsr, got {layout}"
        )
    _check_transforms([block.value for block in blocks], layout, what)
    if triangle not in (None, "lower", "upper"):
        raise ValueError(f"{what}: triangle must be 'lower', 'upper' or None, got {triangle!r}")
    if triangle is not None and layout is torch.sparse_bsr:
        raise ValueError(f"{what}: torch.sparse_bsr has whole blocks, no triangle; take torch.sparse_csr")
    cut_off = False
    if triangle is not None:
        blocks = in_triangle(blocks, out_shape, in_shape, triangle)
        cut_off = any(side_of_diagonal(block, out_shape, in_shape) is None for block in blocks)
    found = by_layout(blocks, out_shape, in_shape, like, layout)
    if cut_off:
        found = _triangle(found, (triangle == "lower") == (layout is not torch.sparse_csc))
    if layout is torch.sparse_bsr:
        found = blocked(found, *block_size(out_shape, in_shape, what))
    size = (prod(out_shape), prod(in_shape))
    _check_index(index_dtype, layout, max(*size, found.values.numel()), what)
    if layout is torch.sparse_coo:
        places: tuple[Tensor, ...] = (torch.stack([found.row().long(), found.column.long()]),)
    else:
        places = tuple([found.handed_out(kept, index_dtype) for kept in (found.begin, found.column)])
    parts = SparseParts(layout, places, found.values, size)
    if _in_parts.get():
        return parts
    matrix = parts.tensor()
    if found.pattern is not None and not cut_off and not inside_functorch():
        _made[matrix] = found.pattern
    return matrix


def _triangle(found: Assembled, below: bool) -> Assembled:
    """Return the entries on the diagonal and on one side of it; which they are is kept with the pattern."""

    def stand() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row = found.row()
        at = ((found.column <= row) if below else (found.column >= row)).nonzero()[:, 0]
        row, column = row.index_select(0, at), found.column.index_select(0, at)
        return at, pointers(row, found.size[0]), row, column

    at, begin, row, column = found.note(("triangle", below), stand)
    values = found.values.index_select(0, at)
    return found._replace(begin=begin, column=column, row=lambda: row, values=values)


def pattern_tensor(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: Kind,
    layout: torch.layout,
) -> Any:
    """Return the sparse matrix with True for each entry that is not zero by structure."""
    if layout is torch.sparse_bsr:
        raise ValueError(
            "pattern: layout must be torch.sparse_coo, sparse_csr or sparse_csc, which name entries; "
            "torch.sparse_bsr names blocks"
        )
    with kept_in_parts():
        parts: SparseParts = sparse_tensor(blocks, out_shape, in_shape, like, layout, "pattern")
    parts = parts._replace(values=torch.ones_like(parts.values, dtype=torch.bool))
    return parts if _in_parts.get() else parts.tensor()


def refill(
    matrix: Tensor,
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: Kind,
    what: str,
) -> Tensor:
    """Write the values of a Jacobian into a sparse matrix that was made of one with the same pattern.

    Raises:
        ValueError: if it was not.
    """
    pattern: Pattern | None = _made.get(matrix)
    blocks = inside(blocks, like.device)
    ends: tuple[Sequence[Block], tuple[int, ...], tuple[int, ...]] = (blocks, out_shape, in_shape)
    if matrix.layout is torch.sparse_csc:
        ends = ([swapped(block) for block in blocks], in_shape, out_shape)
    if pattern is None or pattern is not pattern_of(*ends, like.device):
        raise ValueError(
            f"{what}: out must be a sparse matrix that this function has given before, for arguments with which it "
            "has the same pattern, on the same device; call it without out= first"
        )
    values = matrix.values() if matrix.layout is not torch.sparse_coo else matrix._values()
    if values.dtype != like.dtype:
        raise ValueError(f"{what}: out has {values.dtype}, the Jacobian {like.dtype}")
    if matrix.layout is torch.sparse_bsr:
        refill_blocks(values, pattern, pattern.fill(ends[0], like))
    else:
        pattern.fill(ends[0], like, values)
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


def _check_transforms(values: Sequence[Tensor | float], layout: torch.layout, what: str) -> None:
    """Raise where PyTorch would fail without saying why (torch 2.9-2.13)."""
    if inside_functorch() and not (
        layout is torch.sparse_coo and all(is_known(value) for value in values if isinstance(value, Tensor))
    ):
        raise RuntimeError(
            f"{what}: torch.func's transforms have no tensors of layout {layout} here (vmap has none, grad and the "
            "others only sparse_coo); take the sparse matrix outside them, or to_dense, matmat, gram … inside"
        )


def cut(value: Tensor | float) -> Tensor | float:
    """Return a value without its graph."""
    return value.detach() if isinstance(value, Tensor) else value


def import_scipy(what: str) -> Any:
    """SciPy with the parts used here, or an error that says how to get it."""
    try:
        import scipy
        import scipy.sparse.csgraph
        import scipy.sparse.linalg
    except ImportError as error:
        message = f"{what} needs SciPy, which is not installed; pip install 'torchjac[sparse]'"
        raise ImportError(message) from error
    return scipy
