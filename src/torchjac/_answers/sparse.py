"""The Jacobian as a sparse matrix of PyTorch or SciPy, one row for each entry of the output."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

# It is PyTorch's own way to key by a tensor that may go (torch 2.9-2.13).
from .._blocks.block import Block, TensorOptions
from .._blocks.block_views import in_triangle
from .._blocks.domain import inside
from .._blocks.pattern import Pattern, law
from .._blocks.sort_entries import narrow, rows_of
from .._blocks.spelling import spell
from .._blocks.tracing import inside_functorch, is_known
from .._plan.recorder import recorder
from .._plan.recording import look_at, refuse_program, unrecorded, whole
from .assembly import Assembled, assemble, by_layout, not_held, pointers
from .bsr import block_size, blocked, refill_blocks
from .frame import Frame, SparseParts, in_parts, kept_in_parts, made


def sparse_tensor(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
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
    frame, values = entries_of(blocks, out_shape, in_shape, like, layout, what, triangle)
    return frame.matrix(values, what, index_dtype)


def entries_of(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
    layout: torch.layout,
    what: str,
    triangle: str | None,
) -> tuple[Frame, Tensor]:
    """Return a sparse matrix as its frame and its values; of a program the frame is a constant. See `sparse_tensor`."""
    _check_asked(layout, triangle, what)
    _check_transforms([block.value for block in blocks], layout, what)
    cut_off = False
    if triangle is not None:
        blocks, cut_off = in_triangle(blocks, out_shape, in_shape, triangle)
    blocks = inside(blocks, like.device)
    look_at([table for block in blocks for table in spell(block).tables])
    with unrecorded():
        ends = by_layout(blocks, out_shape, in_shape, layout)
        found = assemble(*ends, like)
        if cut_off:
            found = _triangle(found, (triangle == "lower") == (layout is not torch.sparse_csc))
        if layout is torch.sparse_bsr:
            found = blocked(found, *block_size(out_shape, in_shape, what))
        spelled = [(block.on, spell(block).over) for block in ends[0]]
        frame = Frame(found, spelled, like, layout, cut_off)
    if found.pattern is None:
        refuse_program("places that are not known")
    if recorder() is None:
        return frame, found.values
    return frame, _values(frame, *[block.value for block in blocks])


def _check_asked(layout: torch.layout, triangle: str | None, what: str) -> None:
    if layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr):
        raise ValueError(
            f"{what}: layout must be torch.sparse_coo, sparse_csr, sparse_csc or sparse_bsr, got {layout}"
        )
    if triangle not in (None, "lower", "upper"):
        raise ValueError(f"{what}: triangle must be 'lower', 'upper' or None, got {triangle!r}")
    if triangle is not None and layout is torch.sparse_bsr:
        raise ValueError(f"{what}: torch.sparse_bsr has whole blocks, no triangle; take torch.sparse_csr")


@whole
def _values(frame: Frame, *values: Tensor | float) -> Tensor:
    return frame.values(*values)


def _triangle(found: Assembled, below: bool) -> Assembled:
    """Return the entries on the diagonal and on one side of it; which they are is kept with the pattern."""

    def stand() -> tuple[Tensor, Tensor, Tensor]:
        row = rows_of(found.begin, found.column.numel())
        at = ((found.column <= row) if below else (found.column >= row)).nonzero()[:, 0]
        at = at.to(narrow(row.numel()))
        return at, pointers(row.index_select(0, at), found.size[0]), found.column.index_select(0, at)

    at, begin, column = found.note(("triangle", below), stand)

    def finish(values: Tensor) -> Tensor:
        return values.index_select(0, at)

    row = partial(rows_of, begin, column.numel())
    return found._replace(begin=begin, column=column, row=row, finish=finish, held=not_held)


def pattern_tensor(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
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
    return parts if in_parts.get() else parts.tensor()


def refill(
    matrix: Tensor,
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
    what: str,
) -> Tensor:
    """Write the values of a Jacobian into a sparse matrix that was made of one with the same pattern.

    Raises:
        ValueError: if it was not.
    """
    pattern: Pattern | None = made.get(matrix)
    ends = by_layout(inside(blocks, like.device), out_shape, in_shape, matrix.layout)
    if pattern is None or not pattern.is_of(*law(*ends, like.device)):
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
