"""Systems and determinants with a Jacobian as their matrix, each by the cheapest way its kind allows."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .._blocks.tracing import inside_functorch
from . import low_rank_update
from .factored import rank_bound
from .index_parts import diagonal_blocks
from .solvers.named import factorise_by
from .solvers.system import System
from .sparse import assemble

if TYPE_CHECKING:
    from .operator import Jacobian


#: Matrices that LAPACK and SuperLU do not know; systems with them are solved in float32.
HALF = (torch.float16, torch.bfloat16)


class SlogDet(NamedTuple):
    """The sign of a determinant and the natural logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


def check_square(jacobian: Jacobian, what: str) -> int:
    """Return the number of rows; raises ValueError where there are not as many columns."""
    rows, columns = prod(jacobian.out_shape), prod(jacobian.in_shape)
    if rows != columns:
        raise ValueError(
            f"{what}: needs as many outputs as inputs, got {rows} for {columns} (shapes {jacobian.out_shape} "
            f"and {jacobian.in_shape}); for least squares there is J.lstsq"
        )
    return rows


def solve(jacobian: Jacobian, right: Tensor) -> Tensor:
    """X of shape ``in_shape`` (+ (k,)) with J X = right."""
    size = check_square(jacobian, "solve")
    out_shape, in_shape = jacobian.out_shape, jacobian.in_shape
    tail = tuple(right.shape[len(out_shape) :])
    kind, dims = jacobian._solved_as
    if size == 0:
        return right.reshape((*in_shape, *tail)).clone()
    if kind == "low-rank":
        rank = rank_bound(jacobian)
        raise LinAlgError(
            f"solve: the Jacobian is singular (its factors meet in {rank} numbers, and it has {size} rows)"
        )
    if jacobian.dtype in HALF:
        return solve(jacobian._single, right.float()).to(jacobian.dtype)
    if kind == "block-diagonal":
        matrices, shape = _matrices(jacobian, dims)
        order = [*dims, *(dim for dim in range(len(out_shape)) if dim not in dims)]
        count = matrices.shape[0]
        columns = right.reshape(*out_shape, -1).permute(*order, len(out_shape))
        columns = columns.reshape(count, size // count, -1)
        solved: Tensor = _solved(matrices, columns, _singular_block).reshape((*shape, *tail))
        # Back from (shared dims, rest of the input) to the input's own order.
        order = [*dims, *(dim for dim in range(len(in_shape)) if dim not in dims)]
        return solved.movedim(tuple(range(len(order))), tuple(order))
    columns = right.reshape(size, -1)
    if kind == "low-rank plus":
        try:
            return low_rank_update.woodbury(jacobian, columns).reshape((*in_shape, *tail))
        except LinAlgError:  # a term may be singular though the sum is not
            return _written_out(jacobian, columns).reshape((*in_shape, *tail))
    if kind == "diagonal":
        solved = columns / _nonzero(jacobian.diagonal().reshape(size, 1))
    elif kind == "sparse":
        parent = jacobian._parent
        system = jacobian._system if parent is None else parent._system
        solved = system.solve(columns, transposed=parent is not None)
    else:
        solved = _written_out(jacobian, columns)
    return solved.reshape((*in_shape, *tail))


def solve_by(jacobian: Jacobian, right: Tensor, solver: Any, preconditioner: Any) -> Tensor:
    """Return the same by a solver that the caller names or brings, whatever the kind; its factors are kept too."""
    by = factorise_by(solver, preconditioner)
    if jacobian.dtype in HALF:
        return solve_by(jacobian._single, right.float(), solver, preconditioner).to(jacobian.dtype)
    owner = jacobian if jacobian._parent is None else jacobian._parent
    key = tuple(each if isinstance(each, str) else id(each) for each in (solver, preconditioner))
    if key not in owner._systems:
        ends = (owner.blocks, owner.out_shape, owner.in_shape, owner)
        owner._systems[key] = System(assemble(*ends), by)
    columns = right.reshape(prod(jacobian.out_shape), -1)
    tail = tuple(right.shape[len(jacobian.out_shape) :])
    solved = owner._systems[key].solve(columns, transposed=owner is not jacobian)
    return solved.reshape((*jacobian.in_shape, *tail))


def slogdet(jacobian: Jacobian) -> SlogDet:
    """Return the sign of det J and log |det J|."""
    size = check_square(jacobian, "slogdet")
    kind, dims = jacobian._solved_as
    if kind == "low-rank":
        return _singular(jacobian)
    if jacobian.dtype in HALF:
        return SlogDet(*(part.to(jacobian.dtype) for part in slogdet(jacobian._single)))
    if kind == "low-rank plus":
        try:
            return SlogDet(*low_rank_update.slogdet(jacobian))
        except LinAlgError:
            return SlogDet(*torch.linalg.slogdet(jacobian.to_dense().reshape(size, size)))
    if kind == "diagonal":
        return _of_diagonal(jacobian.diagonal())
    if kind == "block-diagonal":
        sign, logabs = torch.linalg.slogdet(_matrices(jacobian, dims)[0])
        return SlogDet(sign.prod(), logabs.sum())
    if kind == "dense":
        return SlogDet(*torch.linalg.slogdet(jacobian.to_dense().reshape(size, size)))
    at, _ = jacobian._coordinates()
    row, column = at // size, at % size
    if bool((row >= column).all()) or bool((row <= column).all()):
        return _of_diagonal(jacobian.diagonal())
    try:
        return SlogDet(*(jacobian._parent or jacobian)._system.slogdet())
    except LinAlgError:
        return _singular(jacobian)


def _singular(jacobian: Jacobian) -> SlogDet:
    zero = torch.zeros((), dtype=jacobian.dtype, device=jacobian.device)
    return SlogDet(zero, zero.log())


def _of_diagonal(values: Tensor) -> SlogDet:
    return SlogDet(values.sign().prod(), values.abs().log().sum())


def _written_out(jacobian: Jacobian, columns: Tensor) -> Tensor:
    """Return the solutions of a dense system."""
    return _solved(jacobian.to_dense().reshape(columns.shape[0], -1), columns, _dependent)


def _solved(matrices: Tensor, right: Tensor, where: Callable[[Tensor], str]) -> Tensor:
    """Return the solutions of a dense system or of a batch; ``where`` tells what makes it singular."""
    try:
        found: Tensor = torch.linalg.solve(matrices, right)
        return found
    except LinAlgError as error:
        if inside_functorch():  # there no number can be looked at
            raise
        raise LinAlgError(f"solve: the Jacobian is singular ({where(matrices.detach())})") from error


def _dependent(matrix: Tensor) -> str:
    """Return the first row or column that makes a matrix singular."""
    for name, dim in (("row", 1), ("column", 0)):
        zero = (matrix == 0).all(dim)
        if bool(zero.any()):
            return f"{name} {int(zero.nonzero()[0])} is zero"
    info = int(torch.linalg.lu_factor_ex(matrix)[2])
    return f"column {info - 1} depends linearly on others" if info else "its pivots vanish"


def _singular_block(matrices: Tensor) -> str:
    """Return the first block of a batch that is singular."""
    info = torch.linalg.lu_factor_ex(matrices)[2]
    return f"block {int(info.nonzero()[0]) if bool(info.any()) else 0} on its diagonal"


def _matrices(jacobian: Jacobian, dims: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """Return the blocks on the diagonal as a batch of square matrices, and the shape of what they act on."""
    out_shape, in_shape = jacobian.out_shape, jacobian.in_shape
    whole = diagonal_blocks(jacobian.blocks, dims, out_shape, in_shape, jacobian)
    count = prod(out_shape[dim] for dim in dims)
    side = prod(out_shape) // count
    shape = [in_shape[dim] for dim in (*dims, *(dim for dim in range(len(in_shape)) if dim not in dims))]
    return whole.reshape(count, side, side), shape


def _nonzero(pivots: Tensor) -> Tensor:
    if not inside_functorch() and not pivots.is_meta and bool((pivots == 0).any()):
        at = int((pivots.flatten() == 0).nonzero()[0])
        raise LinAlgError(f"solve: the Jacobian is singular (diagonal entry {at} is zero)")
    return pivots
