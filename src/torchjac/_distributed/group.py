"""Agreement of the ranks of a process group: that all of them came so far, or why one did not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.device_mesh import DeviceMesh


class RankError(RuntimeError):
    """Another rank of the group raised, and its message is told here; or it is gone."""


def check_mesh(mesh: Any, what: str) -> Any:
    """Return the mesh, if it is one-dimensional and this process is one of its ranks.

    Raises:
        TypeError: if it is no mesh.
        ValueError: if it has several dims, or this process has no part in it.
    """
    from torch.distributed.device_mesh import DeviceMesh

    if not isinstance(mesh, DeviceMesh):
        raise TypeError(
            f"{what}: mesh must be a DeviceMesh of one dim, got {type(mesh).__name__}; "
            'torch.distributed.device_mesh.init_device_mesh("cpu", (ranks,)) makes one'
        )
    if mesh.ndim != 1:
        raise ValueError(
            f"{what}: mesh must have one dim, got {tuple(mesh.shape)}; take one of its dims, mesh['name']"
        )
    if mesh.get_coordinate() is None:
        raise ValueError(
            f"{what}: rank {dist.get_rank()} is not among the ranks of the mesh, {mesh.mesh.tolist()}"
        )
    return mesh


def device_of(mesh: DeviceMesh) -> torch.device:
    """Return the device of this rank's tensors."""
    if mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(mesh.device_type)


@contextmanager
def together(mesh: DeviceMesh) -> Iterator[None]:
    """Leave a piece of work together: where it raises on one rank, it raises on all of them.

    At its end one integer is summed over the ranks. The rank that failed raises its own error, the others
    `RankError` with its message, instead of waiting for it in what they exchange next. A rank that is gone is told
    so too, within the timeout of the group. It is for code that may fail on one rank alone and exchanges nothing.

    Raises:
        RankError: where another rank raised, or is gone.

    Example:
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torchjac.distributed import together
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> with together(init_device_mesh("cpu", (1,))):
        ...     print("rank", dist.get_rank())
        rank 0
        >>> dist.destroy_process_group()
    """
    mesh = check_mesh(mesh, "together")
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    failures = torch.tensor([error is not None], dtype=torch.int64, device=device_of(mesh))
    all_reduce(failures, mesh)
    if failures.item():
        tell(error, mesh)


def tell(error: Exception | None, mesh: DeviceMesh) -> None:
    """Raise on every rank, as some of them failed: its own error, or the message of the first that has one.

    Raises:
        RankError: where this rank has no error.
    """
    mine = None if error is None else f"{type(error).__name__}: {error}"
    messages: list[str | None] = [None] * mesh.size()
    exchanging(lambda: dist.all_gather_object(messages, mine, group=mesh.get_group()))
    if error is not None:
        raise error
    rank = next(rank for rank, message in enumerate(messages) if message is not None)
    raise RankError(f"rank {rank} of {mesh.size()} raised {messages[rank]}")


def all_reduce(values: Tensor, mesh: DeviceMesh, largest: bool = False) -> Tensor:
    """Return the sum over ranks, or the largest, in place."""
    operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
    exchanging(lambda: dist.all_reduce(values, op=operation, group=mesh.get_group()))
    return values


def exchanging(exchange: Callable[[], Any]) -> Any:
    """Return what an exchange between ranks gives.

    Raises:
        RankError: where one of them is gone, or does not answer within the timeout of the group.
    """
    try:
        return exchange()
    except (RuntimeError, dist.DistError) as error:
        raise RankError(
            "a rank of the process group is gone, or did not answer within the timeout of the group; look at what "
            f"it printed last. torch.distributed says: {error}"
        ) from error
