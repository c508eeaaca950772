"""Sharded Jacobians for other libraries: PETSc's matrices, torch-sla's tensors."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .sharded import ShardedJacobian


def to_petsc(jacobian: ShardedJacobian, rows: tuple[Tensor, Tensor, Tensor], comm: Any) -> Any:
    """PETSc's matrix of this rank's rows and those of the others.

    Raises:
        ImportError: if petsc4py is not installed.
        ValueError: if its communicator has another number of processes than the mesh.
    """
    try:
        from petsc4py import PETSc
    except ImportError as error:
        raise ImportError(
            "to_petsc needs petsc4py, which is not installed; apt install python3-petsc4py, conda install -c "
            "conda-forge petsc4py, or pip install petsc petsc4py, which compiles it"
        ) from error
    own = PETSc.Mat().create(comm=comm)
    ranks = own.getComm().getSize()
    if ranks != jacobian.mesh.size():
        raise ValueError(
            f"to_petsc: PETSc's communicator has {ranks} processes, the mesh {jacobian.mesh.size()} ranks; "
            "start them by mpirun, and make the process group of the same ones"
        )
    begin, column, values = (part.cpu().numpy() for part in rows)
    whole = prod(jacobian.out_shape), prod(jacobian.in_shape)
    here = prod(jacobian.local.out_shape), prod(jacobian.halo._own_shape)
    index, scalar = PETSc.IntType, PETSc.ScalarType
    matrix = PETSc.Mat().createAIJ(
        size=((here[0], whole[0]), (here[1], whole[1])),
        csr=(begin.astype(index), column.astype(index), values.astype(scalar)),
        comm=own.getComm(),
    )
    matrix.assemble()
    return matrix


def to_dsparse(jacobian: ShardedJacobian) -> Any:
    """torch-sla's tensor, whose local matrix counts its columns as we do: this rank's own, then those of others.

    Raises:
        ImportError: if torch-sla is not installed.
    """
    try:
        from torch_sla import SparseTensor
        from torch_sla.distributed import DSparseTensor
        from torch_sla.partition import Partition
    except ImportError as error:
        raise ImportError(
            "to_dsparse needs torch-sla, which is not installed; pip install torch-sla"
        ) from error
    row, column, values = jacobian._entries
    columns = jacobian.halo.columns()
    owned, size = prod(jacobian.halo._own_shape), prod(jacobian.in_shape)
    places = torch.arange(len(columns), device=columns.device)
    to_local = torch.full((size,), -1, dtype=torch.int64, device=columns.device)
    to_local[columns] = places
    sends, receives = jacobian.halo._entries_by_rank()
    ranks = sorted(sends.keys() | receives.keys())
    nothing = places[:0]
    partition = Partition(
        partition_id=jacobian.mesh.get_local_rank(),
        local_nodes=columns,
        owned_nodes=columns[:owned],
        halo_nodes=columns[owned:],
        neighbor_partitions=ranks,
        send_indices={rank: sends.get(rank, nothing) for rank in ranks},
        recv_indices={rank: receives.get(rank, nothing) for rank in ranks},
        global_to_local=to_local,
        local_to_global=columns,
    )
    local = SparseTensor(values, row, column, (len(columns), len(columns)))
    return DSparseTensor.from_sparse_local(local, jacobian.mesh, partition, global_shape=(size, size))
