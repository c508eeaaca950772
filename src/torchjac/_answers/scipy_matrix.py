"""The Jacobian as a sparse array of SciPy's."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._blocks.block import Block, TensorOptions
from .assembly import assemble, by_layout
from .sparse import import_scipy

#: A matrix by diagonals keeps whole ones; past this many numbers for each nonzero it is the wrong format.
MOST_FILL = 4


def scipy_array(
    blocks: Sequence[Block],
    out_shape: tuple[int, ...],
    in_shape: tuple[int, ...],
    like: TensorOptions,
    format: str,
) -> Any:
    """Return a SciPy sparse array of the sum of blocks; gradients end here.

    Raises:
        ImportError: if SciPy is not installed.
        ValueError: for an unknown format, or "dia" where diagonals would be mostly zeros.
    """
    sparse = import_scipy("to_scipy").sparse
    if format not in ("csr", "csc", "coo", "dia"):
        raise ValueError(f"to_scipy: format must be 'csr', 'csc', 'coo' or 'dia', got {format!r}")
    layout = torch.sparse_csc if format == "csc" else torch.sparse_csr
    found = assemble(*by_layout(blocks, out_shape, in_shape, layout), like)
    size = (prod(out_shape), prod(in_shape))
    with torch.no_grad():  # recorded, they may be a tensor of the function's
        values = found.values.detach().cpu()
    if values.dtype in (torch.float16, torch.bfloat16):  # SciPy has neither
        values = values.float()
    narrow = torch.int32 if max(*size, values.numel()) < 2**31 else torch.int64
    index = found.handed_out(found.column, narrow).cpu()
    if format in ("csr", "csc"):
        make = sparse.csr_array if format == "csr" else sparse.csc_array
        begin = found.handed_out(found.begin, narrow).cpu()
        matrix = make((values.numpy(), index.numpy(), begin.numpy()), shape=size)
        matrix.has_sorted_indices = matrix.has_canonical_format = True
        return matrix
    row = found.handed_out(found.row(), narrow).cpu()
    if format == "dia":
        return _diagonals(sparse, row, index, values, size)
    return sparse.coo_array((values.numpy(), (row.numpy(), index.numpy())), shape=size)


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
