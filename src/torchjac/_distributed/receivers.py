"""Sharded Jacobians for other libraries: PETSc's matrices, torch-sla's tensors."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .halo import Halo

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def to_petsc(
    rows: tuple[Tensor, Tensor, Tensor],
    here: tuple[int, int],
    whole: tuple[int, int],
    mesh: DeviceMesh,
    comm: Any,
) -> Any:
    """Return PETSc's matrix of this rank's rows, whose sides are those ``here``, and those of the others.

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
    if ranks != mesh.size():
        raise ValueError(
            f"to_petsc: PETSc's communicator has {ranks} processes, the mesh {mesh.size()} ranks; "
            "start them by mpirun, and make the process group of the same ones"
        )
    begin, column, values = (part.cpu().numpy() for part in rows)
    index, scalar = PETSc.IntType, PETSc.ScalarType
    matrix = PETSc.Mat().createAIJ(
        size=((here[0], whole[0]), (here[1], whole[1])),
        csr=(begin.astype(index), column.astype(index), values.astype(scalar)),
        comm=own.getComm(),
    )
    matrix.assemble()
    return matrix


def to_dsparse(entries: tuple[Tensor, Tensor, Tensor], halo: Halo, size: int, mesh: DeviceMesh) -> Any:
    """Return torch-sla's tensor, whose local matrix counts its columns as we do: this rank's own, then those of others.

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
    row, column, values = entries
    columns, owned = halo.columns(), prod(halo._own_shape)
    places = torch.arange(len(columns), device=columns.device)
    to_local = torch.full((size,), -1, dtype=torch.int64, device=columns.device)
    to_local[columns] = places
    sends, receives = halo._entries_by_rank()
    ranks = sorted(sends.keys() | receives.keys())
    nothing = places[:0]
    partition = Partition(
        partition_id=mesh.get_local_rank(),
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
    return DSparseTensor.from_sparse_local(local, mesh, partition, global_shape=(size, size))
