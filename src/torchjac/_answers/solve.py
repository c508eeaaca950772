"""Systems and determinants with a Jacobian as their matrix, each by the cheapest way its kind allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from .._blocks.block import fitted
from .._blocks.tracing import inside_functorch, is_tracing
from . import low_rank_update
from .assembly import assemble
from .augmented import augmented, solution
from .factored import rank_bound
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks, kept
from .index_parts import diagonal, diagonal_blocks
from .matrix_kind import MatrixKind, is_symmetric, solved_as
from .nonzeros import coordinates
from .products import transposed, with_owner
from .solvers.named import factorise_by
from .solvers.settled import LEFT, Solves, is_suspect, largest, probed, unsettled
from .solvers.system import System
from .to_dense import to_dense

#: Matrices that LAPACK and SuperLU do not know; systems with them are solved in float32.
HALF = (torch.float16, torch.bfloat16)


class SlogDet(NamedTuple):
    """The sign of a determinant and the natural logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


def check_square(form: Form, what: str) -> int:
    """Return the number of rows; raises ValueError where there are not as many columns."""
    rows, columns = prod(form.out_shape), prod(form.in_shape)
    if rows != columns:
        also = "; for least squares there is J.lstsq" if what == "solve" else ""
        raise ValueError(
            f"{what}: needs as many outputs as inputs, got {rows} for {columns} (shapes {form.out_shape} "
            f"and {form.in_shape}){also}"
        )
    return rows


def way(form: Form) -> MatrixKind:
    """Return the kind that a system is solved as here: products are written out where SciPy cannot be called."""
    found = solved_as(form)
    return MatrixKind("dense") if found.name == "product" and (inside_functorch() or is_tracing()) else found


def solve(form: Form, right: Tensor) -> Tensor:
    """Return X of shape ``in_shape`` (+ (k,)) with J X = right."""
    size = check_square(form, "solve")
    out_shape, in_shape = form.out_shape, form.in_shape
    tail = tuple(right.shape[len(out_shape) :])
    kind, dims = way(form)
    if not right.numel():
        return right.reshape((*in_shape, *tail)).clone()
    if kind == "low-rank":
        rank = rank_bound(form)
        raise LinAlgError(
            f"solve: the Jacobian is singular (its factors meet in {rank} numbers, and it has {size} rows)"
        )
    if form.dtype in HALF:
        return solve(single(form), right.float()).to(form.dtype)
    if kind == "block-diagonal":
        matrices, shape = _matrices(form, dims)
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
        assert isinstance(form, LowRankUpdate)
        try:
            return low_rank_update.woodbury(form, columns, solve).reshape((*in_shape, *tail))
        except LinAlgError:  # a term may be singular though the sum is not
            return _written_out(form, columns).reshape((*in_shape, *tail))
    if kind == "product":
        return solution(form, columns, solve).reshape((*in_shape, *tail))
    if kind == "diagonal":
        solved = columns / _nonzero(diagonal(form).reshape(size, 1))
    elif kind == "sparse":
        owner, is_transpose = with_owner(form)
        solved = _system(owner).solve(columns, is_transpose)
    else:
        solved = _written_out(form, columns)
    return solved.reshape((*in_shape, *tail))


def solve_by(form: Form, right: Tensor, solver: Any, preconditioner: Any) -> Tensor:
    """Return the same by a solver that the caller names or brings, whatever the kind; its factors are kept too."""
    by = factorise_by(solver, preconditioner)
    if form.dtype in HALF:
        return solve_by(single(form), right.float(), solver, preconditioner).to(form.dtype)
    owner, is_transpose = with_owner(form)
    key = tuple(each if isinstance(each, str) else id(each) for each in (solver, preconditioner))
    system = kept(owner, ("system", key), lambda: System(assemble(*owner.ends), by))
    tail = tuple(right.shape[len(form.out_shape) :])
    if not right.numel():
        return right.reshape((*form.in_shape, *tail)).clone()
    columns = right.reshape(prod(form.out_shape), -1)
    solved = system.solve(columns, is_transpose)
    return solved.reshape((*form.in_shape, *tail))


def slogdet(form: Form) -> SlogDet:
    """Return the sign of det J and log |det J|."""
    size = check_square(form, "slogdet")
    kind, dims = way(form)
    if kind == "low-rank":
        return _singular(form)
    if form.dtype in HALF:
        return SlogDet(*(part.to(form.dtype) for part in slogdet(single(form))))
    if kind == "low-rank plus":
        assert isinstance(form, LowRankUpdate)
        try:
            sign, logabs = low_rank_update.inner_slogdet(form, solve)
            first = slogdet(form.rest)
            return SlogDet(first.sign * sign, first.logabsdet + logabs)
        except LinAlgError:
            return SlogDet(*torch.linalg.slogdet(to_dense(form).reshape(size, size)))
    if kind == "product":
        found = augmented(form)[0]
        sign, logabs = slogdet(found.system)
        return SlogDet(sign * (-1) ** found.between, logabs)
    if kind == "diagonal":
        return _of_diagonal(diagonal(form))
    if kind == "block-diagonal":
        sign, logabs = torch.linalg.slogdet(_matrices(form, dims)[0])
        return SlogDet(sign.prod(), logabs.sum())
    if kind == "dense":
        return SlogDet(*torch.linalg.slogdet(to_dense(form).reshape(size, size)))
    at, _ = coordinates(form)
    row, column = at // size, at % size
    if bool((row >= column).all()) or bool((row <= column).all()):
        return _of_diagonal(diagonal(form))
    try:
        return SlogDet(*_system(with_owner(form)[0]).slogdet())
    except LinAlgError:
        return _singular(form)


def single(form: Form) -> Form:
    """Return the same in float32, kept with its factors."""
    owner, is_transpose = with_owner(form)
    if is_transpose:
        return transposed(single(owner))

    def make() -> Form:
        if isinstance(form, ProductOfFactors):
            return ProductOfFactors(tuple(map(single, form.factors)))
        blocks = tuple([fitted(block, torch.float32, form.device) for block in form.blocks])
        return SumOfBlocks(form.out_shape, form.in_shape, torch.float32, form.device, blocks)

    return kept(form, "single", make)


def _system(form: Form) -> System:
    """Return the factorised matrix, kept with the form."""
    return kept(form, "system", lambda: System(assemble(*form.ends), symmetric=is_symmetric(form.blocks)))


def _singular(form: Form) -> SlogDet:
    zero = torch.zeros((), dtype=form.dtype, device=form.device)
    return SlogDet(zero, zero.log())


def _of_diagonal(values: Tensor) -> SlogDet:
    return SlogDet(values.sign().prod(), values.abs().log().sum())


def _written_out(form: Form, columns: Tensor) -> Tensor:
    """Return the solutions of a dense system."""
    return _solved(to_dense(form).reshape(columns.shape[0], -1), columns, _dependent)


def _solved(matrices: Tensor, right: Tensor, where: Callable[[Tensor], str]) -> Tensor:
    """Return the solutions of a dense system or of a batch; ``where`` tells what makes it singular."""
    try:
        found: Tensor = torch.linalg.solve(matrices, right)
    except LinAlgError as error:
        if inside_functorch():  # there no number can be looked at
            raise
        raise LinAlgError(f"solve: the Jacobian is singular ({where(matrices.detach())})") from error
    if found.numel() and not (found.is_meta or inside_functorch() or is_tracing()):
        _check(matrices.detach(), right.detach(), found.detach())
    return found


def _check(matrices: Tensor, right: Tensor, found: Tensor) -> None:
    """Raise where a solution is so large that it solves nothing: pivots were zeros but for rounding."""
    if not is_suspect(largest(matrices), right, found):
        return
    factors = torch.linalg.lu_factor(matrices)
    solves = Solves(*[partial(torch.linalg.lu_solve, *factors, adjoint=adjoint) for adjoint in (False, True)])
    for given, solved in probed(right, found, solves):
        left = given - matrices @ solved
        error = left.abs().amax(-2)
        if not float(error.max()) > LEFT * largest(given):
            continue
        wrong = unsettled(given, left, matrices.abs() @ solved.abs(), solved, solves)
        if bool(wrong.any()):
            worst = left.abs().amax(-1).where(wrong.any(-1, keepdim=True), 0)
            block, row = divmod(int(worst.flatten().argmax()), worst.shape[-1])
            name = f"row {row}" if matrices.dim() == 2 else f"row {row} of block {block}"
            raise LinAlgError(
                "solve: the Jacobian is singular to working precision: the solution leaves "
                f"{float(worst.max()):.1e} of a right side of {largest(given):.1e}, most in {name}"
            )


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


def _matrices(form: Form, dims: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """Return the blocks on the diagonal as a batch of square matrices, and the shape of what they act on."""
    out_shape, in_shape = form.out_shape, form.in_shape
    whole = diagonal_blocks(form, dims)
    count = prod(out_shape[dim] for dim in dims)
    side = prod(out_shape) // count
    shape = [in_shape[dim] for dim in (*dims, *(dim for dim in range(len(in_shape)) if dim not in dims))]
    return whole.reshape(count, side, side), shape


def _nonzero(pivots: Tensor) -> Tensor:
    if not inside_functorch() and not pivots.is_meta and bool((pivots == 0).any()):
        at = int((pivots.flatten() == 0).nonzero()[0])
        raise LinAlgError(f"solve: the Jacobian is singular (diagonal entry {at} is zero)")
    return pivots
