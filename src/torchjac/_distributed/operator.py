"""Matrices over the ranks of a mesh: what can be done with any of them by products alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._answers.sparse import import_scipy
from . import krylov
from .group import all_reduce, together
from .layout import local_rows, part_of, sharded

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

PRECONDITIONERS = ("jacobi", "block-jacobi")

#: The relative residual at which an iteration ends
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


class ShardedOperator(ABC):
    """A matrix whose rows are shared out over the ranks of a mesh, in blocks of the output's first dim.

    Vectors are `DTensor`s with ``Shard(0)``, of shape ``in_shape`` or ``out_shape``, and so are the answers. Each
    method is called on all ranks. Answers are constants: gradients end here.

    Attributes:
        mesh: the ranks.
        out_shape: shape of the output.
        in_shape: shape of the input.
        dtype: dtype of the entries.
    """

    mesh: DeviceMesh
    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def _times(self, vector: Tensor) -> Tensor:
        """Return this rank's part of the product with the vector of which this rank's part is given."""

    @abstractmethod
    def _transposed_times(self, vector: Tensor) -> Tensor:
        """Return the same of the transpose."""

    @abstractmethod
    def _diagonal(self) -> Tensor:
        """Return this rank's part of the diagonal of a square one."""

    @abstractmethod
    def _own_block(self) -> Any:
        """Return the square block of this rank's rows and columns, as a matrix of SciPy by rows."""

    @property
    def shape(self) -> torch.Size:
        """``out_shape + in_shape``."""
        return torch.Size((*self.out_shape, *self.in_shape))

    def __matmul__(self, vector: DTensor) -> DTensor:
        """``A @ v``, for v of shape ``in_shape``: each rank reads its halo of the others, nothing more.

        Raises:
            TypeError: if v is no DTensor.
            ValueError: if its shape, dtype, mesh or placements do not fit.
            RankError: if another rank is gone.
        """
        local = part_of(vector, self.in_shape, self.dtype, self.mesh, "A @ v: v")
        return sharded(self._times(local), self.out_shape, self.mesh)

    def __rmatmul__(self, vector: DTensor) -> DTensor:
        """``v @ A``, for v of shape ``out_shape``: what belongs to other ranks goes to them. Raises the same."""
        local = part_of(vector, self.out_shape, self.dtype, self.mesh, "v @ A: v")
        return sharded(self._transposed_times(local), self.in_shape, self.mesh)

    def diagonal(self) -> DTensor:
        """Return the diagonal of a square matrix, of shape ``out_shape``.

        Raises:
            ValueError: if output and input have different shapes.
        """
        self._check_square("diagonal")
        return sharded(self._diagonal(), self.out_shape, self.mesh)

    def __mul__(self, by: float) -> Shifted:
        """``A * c`` and ``c * A``, for a number."""
        return Shifted(self, float(by), 0.0)

    __rmul__ = __mul__

    def __neg__(self) -> Shifted:
        """``-A``."""
        return Shifted(self, -1.0, 0.0)

    def add_diagonal(self, value: float) -> Shifted:
        """Return a + c I: a damped step is ``J.gram().add_diagonal(c)``, an implicit one ``(-h * J).add_diagonal(1)``.

        Raises:
            ValueError: if output and input have different shapes.
        """
        self._check_square("add_diagonal")
        return Shifted(self, 1.0, float(value))

    def solve(
        self,
        right: DTensor,
        solver: str = "gmres",
        preconditioner: str | None = None,
        *,
        tolerance: float | None = None,
        max_products: int = 10_000,
    ) -> DTensor:
        """Solve A x = right by an iteration; the residual is at most ``tolerance`` times as long as the right side.

        Args:
            right: of shape ``out_shape``.
            solver: "cg", for symmetric positive definite matrices (Hestenes & Stiefel 1952), "gmres" (Saad & Schultz
                1986), restarted after 100 products, or "bicgstab" (van der Vorst 1992).
            preconditioner: "jacobi" divides by the diagonal; "block-jacobi" solves with the block of each rank's own
                rows and columns (needs SciPy).
            tolerance: 1e-10 by default, in float32 1e-5.
            max_products: give up after this number of products with A.

        Raises:
            TypeError: if the entries are neither float32 nor float64.
            ValueError: for another name, a matrix that is not square, or a right side that does not fit.
            torch.linalg.LinAlgError: if the iteration does not converge, or a zero on the diagonal or a singular block
                leaves no preconditioner.
            RankError: if another rank has such a block, or is gone.
        """
        self._check_square("solve")
        if solver not in krylov.SOLVERS:
            raise ValueError(f"solve: solver must be one of {tuple(krylov.SOLVERS)}, got {solver!r}")
        if self.dtype not in TOLERANCES:
            raise TypeError(f"solve: the entries must be float32 or float64, got {self.dtype}")
        if preconditioner not in (None, *PRECONDITIONERS):
            raise ValueError(
                f"solve: preconditioner must be one of {PRECONDITIONERS}, got {preconditioner!r}"
            )
        local = part_of(right, self.out_shape, self.dtype, self.mesh, "solve: b").reshape(-1)
        shape = (len(local_rows(self.out_shape[0], self.mesh)), *self.out_shape[1:])

        def times(vector: Tensor) -> Tensor:
            return self._times(vector.reshape(shape)).reshape(-1)

        def dots(left: Tensor, vector: Tensor) -> Tensor:
            """Return the products of the rows of a matrix, or of a vector, with a vector."""
            return all_reduce(left @ vector, self.mesh)

        system = krylov.LinearSystem(times, self._preconditioner(preconditioner), dots, local)
        if tolerance is None:
            tolerance = TOLERANCES[self.dtype]
        found = krylov.solve(system, solver, tolerance, max_products)
        return sharded(found.reshape(shape), self.in_shape, self.mesh)

    def _preconditioner(self, name: str | None) -> Any:
        """Return what approximates the inverse, on this rank's part of a vector; kept."""
        made: dict[str, Any] = vars(self).setdefault("_preconditioners", {})
        if name is None:
            return lambda vector: vector
        if name not in made:
            if name == "jacobi":
                diagonal = self._diagonal().reshape(-1)
                with together(self.mesh):
                    made[name] = krylov.divided_by(diagonal)
            else:
                with together(self.mesh):
                    made[name] = krylov.solved_with(self._own_block())
        return made[name]

    def _check_square(self, what: str) -> None:
        if self.out_shape != self.in_shape:
            raise ValueError(
                f"{what}: output and input must have the same shape, got {self.out_shape} and {self.in_shape}"
            )

    def __repr__(self) -> str:
        """Shape and ranks at a glance."""
        return (
            f"{type(self).__name__}(shape={self.out_shape}+{self.in_shape}, ranks={self.mesh.size()}, "
            f"dtype={self.dtype})"
        )


class Shifted(ShardedOperator):
    """c A + d I, which is not written out."""

    def __init__(self, of: ShardedOperator, scale: float, shift: float) -> None:
        self.mesh, self.out_shape, self.in_shape, self.dtype = of.mesh, of.out_shape, of.in_shape, of.dtype
        self._of, self._scale, self._shift = of, scale, shift
        if isinstance(of, Shifted):
            self._of, self._scale, self._shift = of._of, scale * of._scale, scale * of._shift + shift

    def _times(self, vector: Tensor) -> Tensor:
        return self._changed(self._of._times(vector), vector)

    def _transposed_times(self, vector: Tensor) -> Tensor:
        return self._changed(self._of._transposed_times(vector), vector)

    def _changed(self, product: Tensor, vector: Tensor) -> Tensor:
        found = self._scale * product
        return found.add_(vector, alpha=self._shift) if self._shift else found

    def _diagonal(self) -> Tensor:
        return self._scale * self._of._diagonal() + self._shift

    def _own_block(self) -> Any:
        block = self._of._own_block()
        identity = import_scipy("solve").sparse.eye_array(block.shape[0], dtype=block.dtype, format="csr")
        return self._scale * block + self._shift * identity
