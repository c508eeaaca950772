"""A sparse system as a differentiable function: factors that are kept, and used by transposes and backward passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # it is public, but not exported by name

from ..._blocks.lazy import Notes, lazy
from ..._blocks.sort_entries import rows_of
from ..._blocks.tracing import is_plain
from ..assembly import Assembled, not_held, not_laid
from ..sparse import import_scipy
from .banded import is_narrow, layout
from .choose import factorise
from .matrix import DependentError, Factors, MatrixPattern
from .named import Factorise
from .settled import LEFT, Solves, is_suspect, largest, probed, unsettled

#: The columns of the inverse that are formed at a time for the gradient of a determinant.
COLUMNS_AT_ONCE = 64


class System:
    """A square sparse matrix, factorised where that is first needed, and how."""

    def __init__(self, found: Assembled, by: Factorise | None = None, symmetric: bool = False) -> None:
        self._symmetric = symmetric
        self._fill: Callable[[], Tensor] = lambda: found.values
        self._held, self._laid, self._blocks = found.held, found.laid, found.blocks
        self.size = found.size[0]
        self._begin, self._index = found.begin, found.column
        self._notes = Notes() if found.pattern is None else found.pattern.notes
        self._by = by
        self._factors: Factors | None = None
        self._is_finite, self._largest = True, 0.0
        self.told = ""

    @lazy
    def places(self) -> tuple[Tensor, Tensor]:
        """The row and the column of each nonzero."""
        return rows_of(self._begin, self._index.numel()).long(), self._index.long()

    def __getstate__(self) -> dict[str, Any]:
        """Without the factors, which cannot all be copied: a copy factorises anew where it has to."""
        kept = {"values": self.values, "_fill": None, "_held": not_held, "_laid": not_laid, "_blocks": ()}
        return {**self.__dict__, **kept, "_factors": None, "_notes": Notes()}

    @lazy
    def values(self) -> Tensor:
        """The values of the nonzeros; where nothing is recorded the factors may take the blocks' own instead."""
        with torch.enable_grad():  # whatever mode they are first needed in
            return self._fill()

    def solve(self, right: Tensor, transposed: bool = False) -> Tensor:
        """Return the solution X of A X = right, of shape (n, k), or of Aᵀ X = right; differentiable in both.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
        """
        if is_plain(right) and self._is_plain():
            return self.run(None, transposed, right)
        solved: Tensor = _Solve.apply(self, transposed, self.values, right)  # type: ignore[no-untyped-call]
        return solved

    def _is_plain(self) -> bool:
        values = [block.value for block in self._blocks] or [self.values]
        return all(is_plain(value) for value in values if isinstance(value, Tensor))

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """Return the sign and the logarithm of the absolute value of det A.

        Raises:
            torch.linalg.LinAlgError: where the matrix is singular.
        """
        logabs: Tensor = _LogAbsDet.apply(self, self.values)  # type: ignore[no-untyped-call]
        sign = self._factors.slogdet()[0] if self._factors is not None else 0.0
        return torch.full((), sign, dtype=logabs.dtype, device=logabs.device), logabs

    def factors(self, values: Tensor | None) -> Factors | None:
        """Return the factors, made once; ``values`` are the matrix's own, free of any transform's wrapper, if need be.

        None where there are none because of values that are not finite: every solution is NaN then, as of a dense
        matrix.
        """
        if self._factors is None and self._is_finite:
            import_scipy("solve and slogdet of a sparse Jacobian")
            pattern = MatrixPattern(
                self._begin.cpu().numpy(), self._index.cpu().numpy(), self._notes, self._symmetric
            )
            if values is not None or self._by is not None:
                self._factorise(pattern, self.values if values is None else values)
            elif not self._by_diagonals(pattern):
                held = self._held()
                if held is not None:
                    pattern.source, pattern.law = held.source.cpu().numpy(), held.law
                self._factorise(pattern, self.values if held is None else held.numbers)
        return self._factors

    def _factorise(self, pattern: MatrixPattern, numbers: Tensor) -> None:
        self._largest = largest(numbers)
        self._is_finite = isfinite(self._largest)
        if self._is_finite:
            self._factors, told = (self._by or factorise)(pattern, numbers.detach().cpu().numpy())
            self.told = f"solve: {told}"

    def _by_diagonals(self, pattern: MatrixPattern) -> bool:
        """Factorise a narrow band straight from its blocks, if it is one and they can be laid out so."""
        laid = self._laid(layout(pattern)) if is_narrow(pattern) else None
        if laid is None:
            return False
        try:
            self._factorise(pattern, laid)
        except DependentError:
            return False  # the nonzeros tell where it is singular
        return True

    def run(self, values: Tensor | None, transposed: bool, right: Tensor) -> Tensor:
        """Return the solution, without a graph."""
        factors = self.factors(values)
        if factors is None:
            return torch.full_like(right, torch.nan)
        solved = self._solved(factors, right, transposed)
        if is_suspect(self._largest, right, solved):
            again = Solves(
                *[partial(self._solved, factors, transposed=way) for way in (transposed, not transposed)]
            )
            for given, found in probed(right, solved, again):
                self._check(self.values if values is None else values, transposed, given, found, again)
        return solved

    @staticmethod
    def _solved(factors: Factors, right: Tensor, transposed: bool) -> Tensor:
        found = torch.from_numpy(factors.solve(right.detach().cpu().contiguous().numpy(), transposed))
        return found.to(right.device, right.dtype)

    def _check(
        self,
        values: Tensor,
        transposed: bool,
        right: Tensor,
        solved: Tensor,
        again: Solves,
    ) -> None:
        """Raise where a solution so large solves nothing: pivots were zeros but for rounding."""
        worst = int(solved.abs().amax(0).argmax())
        given, found = right.detach()[:, worst], solved[:, worst]
        row, column = self.places[::-1] if transposed else self.places
        terms = values.detach() * found[column]
        error = given.index_add(0, row, -terms)
        if not largest(error) > LEFT * largest(given):
            return
        sizes = torch.zeros_like(given).index_add(0, row, terms.abs())
        if bool(unsettled(given[:, None], error[:, None], sizes[:, None], found[:, None], again).any()):
            name, at = "column" if transposed else "row", int(error.abs().argmax())
            raise LinAlgError(
                f"the Jacobian is singular to working precision: the solution leaves {largest(error):.1e} of a right "
                f"side of {largest(given):.1e}, most in {name} {at}"
            )


def _refuse_vmap() -> NoReturn:
    raise NotImplementedError(
        "a sparse Jacobian is factorised by SciPy, which vmap cannot see into; solve for one sample after another, "
        "or use torch.linalg on J.to_dense()"
    )


class _Solve(torch.autograd.Function):
    """X = A⁻¹ B (or A⁻ᵀ B): ∂/∂B pulls back by A⁻ᵀ, ∂/∂A[r, c] is −Λ[r] · X[c] with Λ what is pulled back."""

    @staticmethod
    def forward(system: System, transposed: bool, values: Tensor, right: Tensor) -> Tensor:
        return system.run(values, transposed, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.system, ctx.transposed, values, _ = inputs
        ctx.save_for_backward(values, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        values, solved = ctx.saved_tensors
        system = ctx.system
        pulled = _Solve.apply(system, not ctx.transposed, values, cotangents[0])  # type: ignore[no-untyped-call]
        left, right = (solved, pulled) if ctx.transposed else (pulled, solved)
        row, column = system.places
        return None, None, -(left[row] * right[column]).sum(-1), pulled

    @staticmethod
    def vmap(*_: Any) -> Any:
        _refuse_vmap()


class _LogAbsDet(torch.autograd.Function):
    """log |det A|: ∂/∂A[r, c] = A⁻¹[c, r], by one solve for each column of the inverse."""

    @staticmethod
    def forward(system: System, values: Tensor) -> Tensor:
        factors = system.factors(values)
        return values.new_full((), torch.nan if factors is None else factors.slogdet()[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.system, values = inputs
        ctx.save_for_backward(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        system, (values,) = ctx.system, ctx.saved_tensors
        inverse = _Inverse.apply(system, values)  # type: ignore[no-untyped-call]
        return None, inverse * cotangents[0]

    @staticmethod
    def vmap(*_: Any) -> Any:
        _refuse_vmap()


class _Inverse(torch.autograd.Function):
    """The entries A⁻¹[c, r] for each nonzero A[r, c], some columns at a time; not differentiable."""

    @staticmethod
    def forward(system: System, values: Tensor) -> Tensor:
        found = torch.zeros_like(values)
        row, column = system.places
        for begin in range(0, system.size, COLUMNS_AT_ONCE):
            count = min(COLUMNS_AT_ONCE, system.size - begin)
            right = values.new_zeros(system.size, count)
            right[begin : begin + count] = torch.eye(count, dtype=values.dtype, device=values.device)
            inverse = system.run(values, False, right)
            here = ((row >= begin) & (row < begin + count)).nonzero()[:, 0]
            found[here] = inverse[column[here], row[here] - begin]
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, ...]:
        return None, None
