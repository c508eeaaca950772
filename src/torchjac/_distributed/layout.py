"""The parts into which `Shard(0)` cuts a tensor, and tensors that are cut so."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .group import check_mesh

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def rows_of(size: int, rank: int, ranks: int) -> range:
    """Return the positions along a first dim that a rank has: ⌈size / ranks⌉, the last ranks fewer or none."""
    each = -(-size // ranks)
    return range(min(rank * each, size), min((rank + 1) * each, size))


def local_rows(size: int, mesh: DeviceMesh) -> range:
    """Return the positions along a first dim of some size that this rank of a mesh has, as ``Shard(0)`` cuts it.

    Each rank has ⌈size / ranks⌉ of them, the last ones fewer, or none.

    Example:
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torchjac.distributed import local_rows
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> local_rows(10, init_device_mesh("cpu", (1,)))
        range(0, 10)
        >>> dist.destroy_process_group()
    """
    mesh = check_mesh(mesh, "local_rows")
    return rows_of(size, mesh.get_local_rank(), mesh.size())


def sharded(local: Tensor, shape: tuple[int, ...], mesh: DeviceMesh) -> DTensor:
    """Return the DTensor of some shape whose part on this rank is given."""
    from torch.distributed.tensor import DTensor, Shard

    strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    return DTensor.from_local(
        local, mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=tuple(strides)
    )


def part_of(given: Any, shape: tuple[int, ...], dtype: torch.dtype, mesh: DeviceMesh, what: str) -> Tensor:
    """Return this rank's part of a DTensor that is cut along its first dim.

    Raises:
        TypeError: if it is no DTensor.
        ValueError: if it is cut otherwise, or its mesh, shape or dtype does not fit.
    """
    from torch.distributed.tensor import DTensor, Shard

    if not isinstance(given, DTensor):
        raise TypeError(
            f"{what} must be a DTensor of shape {shape} with Shard(0), got {type(given).__name__}; "
            "torch.distributed.tensor.distribute_tensor(v, mesh, [Shard(0)]) makes one"
        )
    if given.device_mesh != mesh:
        raise ValueError(f"{what} must be on the mesh {mesh}, got {given.device_mesh}")
    if tuple(given.placements) != (Shard(0),):
        raise ValueError(
            f"{what} must have the placements (Shard(0),), got {given.placements}; use "
            "redistribute(placements=[Shard(0)])"
        )
    if tuple(given.shape) != shape or given.dtype != dtype:
        raise ValueError(
            f"{what} must have shape {shape} and {dtype}, got {tuple(given.shape)} and {given.dtype}"
        )
    local = given.to_local().detach()
    rows = len(local_rows(shape[0], mesh))
    if len(local) != rows:
        raise ValueError(
            f"{what} must be cut as distribute_tensor cuts it, into {rows} of {shape[0]} rows on this rank, got "
            f"{len(local)}; local_rows tells which"
        )
    return local
