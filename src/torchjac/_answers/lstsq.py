"""Least squares with a Jacobian as their matrix, without forming JᵀJ, whose condition is that of J squared."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .._blocks.block import identity, valued
from .._blocks.tracing import inside_functorch, is_tracing
from .assembly import assemble
from .augmented import solution
from .bordered import bordered
from .forms import Form, SumOfBlocks
from .index_parts import diagonal_blocks
from .products import transposed
from .solve import HALF, single, solve, way
from .to_dense import to_dense


def lstsq(form: Form, right: Tensor) -> Tensor:
    """Return the x with the least |J x − b|, or of those with none the shortest; J has full rank.

    Samples of a batch are solved apart and dense matrices written out, by QR. Others go through the augmented system
    of Björck (Numerical Methods for Least Squares Problems, section 2.5.1), with r the residual:

        [s I  J] [r/s]   [b]                           [s I  Jᵀ] [x/s]   [0]
        [Jᵀ   0] [ x ] = [0]    or, where J is wide,   [J    0 ] [ y ] = [b]
    """
    if form.dtype in HALF:
        return lstsq(single(form), right.float()).to(form.dtype)
    out_shape, in_shape = form.out_shape, form.in_shape
    rows, columns = prod(out_shape), prod(in_shape)
    tail = tuple(right.shape[len(out_shape) :])
    if not right.numel() or not columns:
        return right.new_zeros((*in_shape, *tail))
    flat = right.reshape(rows, -1)
    kind, dims = way(form)
    if kind in ("dense", "low-rank") or rows == 1 or columns == 1:
        whole = to_dense(form).reshape(rows, columns)
        return _by_qr(whole, flat).reshape((*in_shape, *tail))
    if kind == "block-diagonal" and dims == tuple(range(len(dims))):
        count = prod(out_shape[dim] for dim in dims)
        blocks = diagonal_blocks(form, dims)
        matrices = blocks.reshape(count, rows // count, columns // count)
        return _by_qr(matrices, flat.reshape(count, rows // count, -1)).reshape((*in_shape, *tail))
    if kind == "product":
        return solution(form, flat, solve).reshape((*in_shape, *tail))
    tall = rows >= columns
    over = form if tall else transposed(form)
    eye = valued(identity(over.out_shape), _size(form))
    damped = SumOfBlocks(over.out_shape, over.out_shape, over.dtype, over.device, (eye,))
    system = bordered([[damped, over], [transposed(over), None]])
    zeros = flat.new_zeros(columns, flat.shape[1])
    try:
        if tall:
            found: Tensor = solve(system, torch.cat([flat, zeros]))[rows:]
        else:
            found = solve(system, torch.cat([zeros, flat]))[:columns]
    except LinAlgError as error:
        raise LinAlgError(f"lstsq: the Jacobian has not full rank{_where(form, tall)}") from error
    return found.reshape((*in_shape, *tail))


def _where(form: Form, tall: bool) -> str:
    """Return the first column of a tall matrix, or row of a wide one, that is zero."""
    found = assemble(*form.ends)
    full = found.values.detach() != 0
    at, size = (found.column, found.size[1]) if tall else (found.row(), found.size[0])
    empty = torch.bincount(at[full].long(), minlength=size) == 0
    name = "column" if tall else "row"
    return f" ({name} {int(empty.nonzero()[0])} is zero)" if bool(empty.any()) else ""


def _size(form: Form) -> float:
    """Return the largest value of the blocks, which scales the augmented system as its matrix is scaled."""
    tensors = [block.value for block in form.blocks if isinstance(block.value, Tensor)]
    sizes = [float(value.detach().abs().max()) for value in tensors if value.numel()]
    return max(sizes, default=1.0) or 1.0


def _by_qr(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve by QR, of the transpose where the matrix is wide."""
    if matrix.shape[-2] >= matrix.shape[-1]:
        q, r = torch.linalg.qr(matrix)
        _check_rank(r.detach(), "column")
        found: Tensor = torch.linalg.solve_triangular(r, q.mT @ right, upper=True)
        return found
    q, r = torch.linalg.qr(matrix.mT)
    _check_rank(r.detach(), "row")
    return q @ torch.linalg.solve_triangular(r.mT, right, upper=False)  # type: ignore[no-any-return]


def _check_rank(r: Tensor, name: str) -> None:
    """Raise where what a column has beside those before it is rounding, whatever its scale; if it can be looked at."""
    if not r.numel() or r.is_meta or inside_functorch() or is_tracing():
        return
    pivots = r.diagonal(dim1=-2, dim2=-1).abs()
    weak = (pivots <= pivots.shape[-1] * torch.finfo(r.dtype).eps * r.norm(dim=-2)).nonzero()
    if len(weak):
        *block, at = weak[0].tolist()
        told = f" of block {block[0]}" if block else ""
        raise LinAlgError(
            f"lstsq: the Jacobian has not full rank ({name} {at}{told} depends linearly on those before it)"
        )
