"""The Jacobian as a sparse matrix of PyTorch or SciPy, one row for each entry of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.ends import same_positions
from .._blocks.traced import inside_functorch, is_known

#: A matrix by diagonals keeps whole ones; past so many numbers for each nonzero it is the wrong format.
MOST_FILL = 4


class SparseParts(NamedTuple):
    """A sparse matrix before it is assembled: index tensors as its layout wants them, and the values."""

    layout: torch.layout
    places: tuple[Tensor, ...]
    values: Tensor
    size: tuple[int, int]

    def tensor(self) -> Tensor:
        """The matrix."""
        layout, places, values, size = self
        if layout is torch.sparse_coo:
            index = places[0]
            return torch.sparse_coo_tensor(index, values, size, is_coalesced=True, check_invariants=False)
        begin, index = places
        if layout is torch.sparse_csr:
            return torch.sparse_csr_tensor(begin, index, values, size, check_invariants=False)
        return torch.sparse_csc_tensor(begin, index, values, size, check_invariants=False)


_in_parts: ContextVar[bool] = ContextVar("torchjac_sparse_in_parts", default=False)


@contextmanager
def kept_in_parts() -> Iterator[None]:
    """Give parts instead of sparse matrices: tracers know none, so a captured program assembles them at its end."""
    token = _in_parts.set(True)
    try:
        yield
    finally:
        _in_parts.reset(token)


def sparse_tensor(
    at: Tensor,
    values: Tensor,
    rows: int,
    columns: int,
    layout: torch.layout,
    what: str,
    index_dtype: torch.dtype = torch.int64,
) -> Any:
    """A sparse matrix from sorted positions in the flattened dense one; its indices are sorted.

    Raises:
        ValueError: if the layout is none of ``torch.sparse_coo``, ``sparse_csr`` and ``sparse_csc``, or cannot
            have indices of that dtype.
        RuntimeError: inside a transform that has no tensors of this layout.
    """
    _check_index(index_dtype, layout, max(rows, columns, at.numel()), what)
    _check_transforms(values, layout, what)
    row, column = split(at, columns)
    if layout is torch.sparse_coo:
        places: tuple[Tensor, ...] = (torch.stack([row, column]),)
    elif layout is torch.sparse_csr:
        places = pointers(row, rows).to(index_dtype), column.to(index_dtype)
    elif layout is torch.sparse_csc:
        order = column.argsort(stable=True)
        places = pointers(column[order], columns).to(index_dtype), row[order].to(index_dtype)
        values = values[order]
    else:
        raise ValueError(f"{what}: layout must be torch.sparse_coo, sparse_csr or sparse_csc, got {layout}")
    parts = SparseParts(layout, places, values, (rows, columns))
    return parts if _in_parts.get() else parts.tensor()


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


def _check_transforms(values: Tensor, layout: torch.layout, what: str) -> None:
    """Raise where PyTorch would fail without saying why (torch 2.9-2.13)."""
    if inside_functorch() and not (layout is torch.sparse_coo and is_known(values)):
        raise RuntimeError(
            f"{what}: torch.func's transforms have no tensors of layout {layout} here (vmap has none, grad and the "
            "others only sparse_coo); take the sparse matrix outside them, or to_dense, matmat, gram … inside"
        )


def split(at: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Positions in the flattened matrix as rows and columns."""
    return at // max(columns, 1), at % max(columns, 1)


def pointers(row: Tensor, rows: int) -> Tensor:
    """Where each row begins in a sorted list of rows, and where the last one ends."""
    return torch.searchsorted(row, torch.arange(rows + 1, device=row.device))


def scipy_array(at: Tensor, values: Tensor, rows: int, columns: int, format: str) -> Any:
    """A SciPy sparse array from sorted positions; values are copied to NumPy, so gradients end here.

    Raises:
        ImportError: if SciPy is not installed.
        ValueError: for an unknown format, or "dia" where diagonals would be mostly zeros.
    """
    sparse = import_scipy("to_scipy").sparse
    values = values.detach().cpu()
    if values.dtype in (torch.float16, torch.bfloat16):  # SciPy has neither
        values = values.float()
    size = (rows, columns)
    narrow = torch.int32 if max(rows, columns, at.numel()) < 2**31 else torch.int64
    row, column = split(at.cpu(), columns)
    if format == "dia":
        return _diagonals(sparse, row, column, values, size)
    if format not in ("csr", "csc", "coo"):
        raise ValueError(f"to_scipy: format must be 'csr', 'csc', 'coo' or 'dia', got {format!r}")
    if format == "coo":
        index = (row.to(narrow).numpy(), column.to(narrow).numpy())
        return sparse.coo_array((values.numpy(), index), shape=size)
    begin = pointers(row, rows).to(narrow).numpy()
    matrix = sparse.csr_array((values.numpy(), column.to(narrow).numpy(), begin), shape=size)
    return matrix if format == "csr" else matrix.tocsc()


def _diagonals(sparse: Any, row: Tensor, column: Tensor, values: Tensor, size: tuple[int, int]) -> Any:
    offsets, number = torch.unique(column - row, return_inverse=True)
    held = offsets.numel() * size[1]
    if held > MOST_FILL * (values.numel() + max(size)):
        raise ValueError(
            f"to_scipy: {values.numel():,} nonzeros stand on {offsets.numel():,} diagonals, which would hold "
            f"{held:,} numbers; use format='csr'"
        )
    data = values.new_zeros(offsets.numel(), size[1])
    data[number, column] = values
    return sparse.dia_array((data.numpy(), offsets.numpy()), shape=size)


def bsr_tensor(blocks: Tensor) -> Tensor:
    """A block-diagonal matrix from its blocks, of shape (B, m, n)."""
    _check_transforms(blocks, torch.sparse_bsr, "to_bsr")
    count, height, width = blocks.shape
    at = torch.arange(count + 1, device=blocks.device)
    return torch.sparse_bsr_tensor(
        at, at[:-1], blocks, (count * height, count * width), check_invariants=False
    )


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


def is_block_diagonal(blocks: Sequence[Block]) -> bool:
    """Whether output and input agree along their first dim in every block."""
    return all(same_positions(block.out[0], block.wrt[0]) for block in blocks)
