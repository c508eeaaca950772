"""The Jacobian over ranks: each has some rows, as blocks, and a plan that brings the columns they read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._answers.csr import csr_tensor
from .._answers.operator import Jacobian
from .._answers.sparse import import_scipy
from . import receivers
from .group import all_reduce
from .halo import Halo
from .layout import local_rows, part_of, sharded
from .operator import ShardedOperator

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


class RowEntries(NamedTuple):
    """The nonzeros of a rank's rows, by rows and each once: row and column here, and value.

    Columns are counted among `Halo.columns`: this rank's own come first.
    """

    row: Tensor
    column: Tensor
    values: Tensor


class ShardedJacobian(ShardedOperator):
    """∂output/∂input, its rows shared out over the ranks of a mesh as ``Shard(0)`` cuts the output.

    Each rank keeps its rows as a `Jacobian` by the columns that they read. Products exchange the halo, what they
    read of other ranks' columns, and nothing else; they take and give `DTensor`s with ``Shard(0)``.

    Attributes:
        local: the Jacobian of this rank's rows, by the local tensor that the halo gathers.
    """

    def __init__(
        self,
        local: Jacobian,
        mesh: DeviceMesh,
        out_shape: tuple[int, ...],
        in_shape: tuple[int, ...],
        halo: Callable[[], Halo],
    ) -> None:
        self.local, self.mesh, self.out_shape, self.in_shape = local, mesh, out_shape, in_shape
        self.dtype, self.device = local.dtype, local.device
        self._find_halo = halo

    @cached_property
    def halo(self) -> Halo:
        """Return the columns that this rank reads, and how their values come from other ranks."""
        return self._find_halo()

    @property
    def rows(self) -> range:
        """The positions along the output's first dim that this rank has."""
        return local_rows(self.out_shape[0], self.mesh)

    @cached_property
    def nnz(self) -> int:
        """Return the number of entries that are not zero by structure, on all ranks."""
        here = torch.tensor(len(self._entries.values), device=self.device)
        return int(all_reduce(here, self.mesh).item())

    def gram(self, weight: DTensor | None = None) -> Gram:
        """JᵀJ, or JᵀWJ for the diagonal of W, of shape ``out_shape``: not written out, its products are two of J's.

        Raises:
            TypeError: if the weight is no DTensor.
            ValueError: if it does not fit.
        """
        return Gram(self, weight)

    def norm(self, ord: str | float = "fro") -> float:
        """Return the norm: "fro", the root of the sum of squares; 1 and ``inf``, the largest column and row.

        Raises:
            ValueError: for any other.
        """
        row, _, values = self._entries
        if ord == "fro":
            return float(all_reduce(values.square().sum(), self.mesh).sqrt())
        if ord == 1:
            sums = self._column_sums(values.abs())
        elif ord == float("inf"):
            sums = values.new_zeros(prod(self.local.out_shape)).index_add_(0, row, values.abs())
        else:
            raise ValueError(f'norm: ord must be "fro", 1 or inf, got {ord!r}')
        largest = torch.cat([sums.reshape(-1), sums.new_zeros(1)]).max()
        return float(all_reduce(largest, self.mesh, largest=True))

    def to_dense(self) -> DTensor:
        """Return the Jacobian as a dense tensor, of which each rank writes its rows; nothing is exchanged.

        ``to_dense().full_tensor()`` gathers it.
        """
        row, column, values = self._entries
        dense = values.new_zeros(prod(self.local.out_shape), prod(self.in_shape))
        dense[row, self.halo.columns()[column]] = values
        local = dense.reshape(*self.local.out_shape, *self.in_shape)
        return sharded(local, tuple(self.shape), self.mesh)

    def to_sparse(self) -> Tensor:
        """Return this rank's rows as a CSR matrix of PyTorch, by the columns of all ranks; nothing is exchanged."""
        begin, column, values = self._by_rows()
        size = (prod(self.local.out_shape), prod(self.in_shape))
        return csr_tensor(begin, column, values, size)

    def to_petsc(self, comm: Any = None) -> Any:
        """Return the matrix as one of PETSc, type AIJ, on a communicator of as many processes as the mesh has ranks.

        Each rank gives its rows, as CSR with the columns of all ranks. Start the processes by ``mpirun``.

        Args:
            comm: the communicator of mpi4py or petsc4py; PETSc's own default otherwise.

        Raises:
            ImportError: if petsc4py is not installed.
            ValueError: if the communicator has another number of processes.
        """
        here = prod(self.local.out_shape), prod(self.halo._own_shape)
        whole = prod(self.out_shape), prod(self.in_shape)
        return receivers.to_petsc(self._by_rows(), here, whole, self.mesh, comm)

    def to_dsparse(self) -> Any:
        """Return the matrix as a `DSparseTensor` of torch-sla, whose vectors are cut as ours are.

        Raises:
            ImportError: if torch-sla is not installed.
            ValueError: if output and input have different shapes.
        """
        self._check_square("to_dsparse")
        return receivers.to_dsparse(self._entries, self.halo, prod(self.in_shape), self.mesh)

    def _times(self, vector: Tensor) -> Tensor:
        product: Tensor = self.local @ self.halo._fetched(vector)
        return product

    def _transposed_times(self, vector: Tensor) -> Tensor:
        return self.halo._given_back(vector.contiguous() @ self.local)

    def _diagonal(self) -> Tensor:
        row, column, values = self._entries
        found = values.new_zeros(prod(self.local.out_shape))
        on = (row == column).nonzero()[:, 0]
        return found.index_copy_(0, row[on], values[on]).reshape(self.local.out_shape)

    def _own_block(self) -> Any:
        row, column, values = self._entries
        size = prod(self.local.out_shape)
        own = (column < size).nonzero()[:, 0]
        places = (row[own].int().cpu().numpy(), column[own].int().cpu().numpy())
        made = import_scipy("solve").sparse.csr_array
        return made((values[own].cpu().numpy(), places), shape=(size, size))

    def _column_sums(self, values: Tensor) -> Tensor:
        """Return the sums over the rows of all ranks of numbers that stand at the nonzeros, for this rank's columns."""
        return self.halo._summed(self._entries.column, values)

    def _by_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return where each of this rank's rows begins, the columns of all ranks, rising in each row, and values."""
        row, column, values = self._entries
        column = self.halo.columns()[column]
        order = torch.argsort(row * max(prod(self.in_shape), 1) + column)
        rows = torch.arange(prod(self.local.out_shape) + 1, device=row.device)
        return torch.searchsorted(row, rows), column[order], values[order]

    @cached_property
    def _entries(self) -> RowEntries:
        matrix = self.local.to_sparse()
        row, column = matrix.indices()
        size = (prod(self.local.out_shape), len(self.halo.columns()))
        places = torch.stack([row, self.halo._places(column)])
        matrix = torch.sparse_coo_tensor(
            places, matrix.values(), size, device=row.device, check_invariants=False
        ).coalesce()
        row, column = matrix.indices()
        return RowEntries(row, column, matrix.values())


class Gram(ShardedOperator):
    """JᵀWJ of a sharded Jacobian, by products: W is a diagonal, or the identity."""

    def __init__(self, jacobian: ShardedJacobian, weight: DTensor | None) -> None:
        self.mesh, self.dtype = jacobian.mesh, jacobian.dtype
        self.out_shape = self.in_shape = jacobian.in_shape
        self._jacobian = jacobian
        self._weight: Tensor | None = None
        if weight is not None:
            self._weight = part_of(weight, jacobian.out_shape, self.dtype, self.mesh, "gram: weight")

    def _times(self, vector: Tensor) -> Tensor:
        product = self._jacobian._times(vector)
        return self._jacobian._transposed_times(product if self._weight is None else self._weight * product)

    _transposed_times = _times

    def _diagonal(self) -> Tensor:
        row, _, values = self._jacobian._entries
        squares = values.square()
        if self._weight is not None:
            squares = squares * self._weight.reshape(-1)[row]
        return self._jacobian._column_sums(squares)

    def _own_block(self) -> Any:
        raise NotImplementedError(
            'solve: preconditioner="block-jacobi" needs the rows of other ranks for a gram matrix; take "jacobi"'
        )
