"""Halos: which entries of a sharded tensor a rank reads, those of other ranks among them, and how they come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .exchange import Exchange
from .group import check_mesh, device_of, together
from .layout import part_of, rows_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


#: A local tensor is put together of slices if they are not more than these, else by an index table.
MOST_RUNS = 16

#: Of the lists that a local tensor is put together of, the one that comes from other ranks.
THEIRS = 1


class Halo:
    """The entries of a tensor, sharded along its first dim, that this rank reads: its own, and some of others.

    It is made once, on all ranks at the same time, and serves every exchange: `gather` brings the values, and the
    Jacobian of a function of what it gives (`local_jacobian`) knows its columns by it.

    Args:
        mesh: the ranks, a `DeviceMesh` of one dim.
        shape: the shape of the whole tensor; `local_rows` tells which part of it this rank has.
        positions: the positions along its first dim that this rank reads, in the order in which its function takes
            them; a range, a list or a tensor. They may be any, and may come twice.

    Attributes:
        local_shape: the shape of what `gather` gives.
        received: how many numbers come from other ranks in each exchange.
        sent: how many go to other ranks.

    Raises:
        ValueError: if a position is out of range, or the shape has no dims.
        RankError: if that happens on another rank.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torch.distributed.tensor import Shard, distribute_tensor
        >>> from torchjac.distributed import Halo
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (1,))
        >>> around = Halo(mesh, (4,), [3, 0, 1, 2, 3, 0])  # a ring of four points
        >>> around.gather(distribute_tensor(torch.arange(4.0), mesh, [Shard(0)]))
        tensor([3., 0., 1., 2., 3., 0.])
        >>> dist.destroy_process_group()
    """

    def __init__(self, mesh: DeviceMesh, shape: Sequence[int], positions: Sequence[int] | Tensor) -> None:
        mesh = check_mesh(mesh, "Halo")
        shape = tuple(shape)
        with together(mesh):
            read = _checked(shape, positions, device_of(mesh))
        self._begin(mesh, shape, 1, read, read, (len(read), *shape[1:]))

    @classmethod
    def _of_entries(cls, mesh: DeviceMesh, shape: tuple[int, ...], entries: Tensor, rows: range) -> Halo:
        """Return the halo that brings some entries of the flattened tensor, all of them in some rows, to those rows.

        The other entries of these rows are zero.
        """
        halo, each = cls.__new__(cls), prod(shape[1:])
        taken = torch.arange(rows.start * each, rows.stop * each, device=entries.device)
        halo._begin(mesh, shape, each, entries, taken, (len(rows), *shape[1:]))
        return halo

    def _begin(
        self,
        mesh: DeviceMesh,
        shape: tuple[int, ...],
        units: int,
        read: Tensor,
        taken: Tensor,
        local_shape: tuple[int, ...],
    ) -> None:
        """Make the exchange of units, a number of them at each position: those read, and those of the local tensor."""
        self.mesh, self.shape, self.local_shape = mesh, shape, local_shape
        self._width = prod(shape[1:]) // units if units else 0
        ends = [units * rows_of(shape[0], rank, mesh.size()).stop for rank in range(mesh.size())]
        me = mesh.get_local_rank()
        own = range(ends[me - 1] if me else 0, ends[me])
        apart = torch.unique(read[(read < own.start) | (read >= own.stop)])
        self._exchange = Exchange(mesh, ends, apart)
        #: A local tensor is made of these, laid end to end: this rank's own units, those of others, one that is zero.
        self._sizes = [len(own), len(apart), 1]
        at = torch.searchsorted(apart, taken)
        there = torch.zeros_like(taken, dtype=torch.bool)
        if len(apart):
            there = apart[at.clamp(max=len(apart) - 1)] == taken
        mine = (taken >= own.start) & (taken < own.stop)
        behind = torch.where(there, len(own) + at, len(own) + len(apart))
        #: The position in them of each unit of the local tensor
        self._index = torch.where(mine, taken - own.start, behind)
        self._runs = _runs(self._index, [0, len(own), len(own) + len(apart)])

    @property
    def received(self) -> int:
        """The number of entries that come from other ranks in each exchange."""
        return len(self._exchange.wanted) * self._width

    @property
    def sent(self) -> int:
        """The number of entries that go to other ranks in each exchange."""
        return sum(map(len, self._exchange.sends.values())) * self._width

    def gather(self, values: DTensor) -> Tensor:
        """Return the local tensor of this rank: what it reads of a whole tensor, in the order of the positions.

        Raises:
            TypeError: if the values are no DTensor.
            ValueError: if they do not have the shape, or are not sharded along the first dim.
            RankError: if another rank is gone.
        """
        dtype = getattr(values, "dtype", torch.get_default_dtype())
        return self._fetched(part_of(values, self.shape, dtype, self.mesh, "gather: values"))

    def _fetched(self, mine: Tensor) -> Tensor:
        """`gather`, of this rank's part of the values."""
        mine = mine.reshape(len(self._exchange.own), self._width)
        theirs, wait = self._exchange.fetch(mine)
        sources = (mine, theirs, mine.new_zeros(1, self._width))
        if self._runs is None:
            wait()
            return torch.cat(sources).index_select(0, self._index).reshape(self.local_shape)
        local = mine.new_empty(len(self._index), self._width)
        for source, begin, run in self._runs:
            if source != THEIRS:
                local[run] = sources[source][begin : begin + run.stop - run.start]
        wait()
        for source, begin, run in self._runs:
            if source == THEIRS:
                local[run] = theirs[begin : begin + run.stop - run.start]
        return local.reshape(self.local_shape)

    def _given_back(self, local: Tensor) -> Tensor:
        """Transpose `_fetched`: add each number of a local tensor to the entry that it was read from."""
        flat = local.reshape(len(self._index), self._width)
        found = flat.new_zeros(sum(self._sizes), self._width)
        sources = found.split_with_sizes(self._sizes)
        if self._runs is None:
            found.index_add_(0, self._index, flat)
        for source, begin, run in self._runs or ():
            sources[source][begin : begin + run.stop - run.start] += flat[run]
        return self._exchange.give_back(sources[0], sources[1]).reshape(self._own_shape)

    def _summed(self, column: Tensor, values: Tensor) -> Tensor:
        """Return the sums over all ranks of numbers at entries counted among `columns`, for this rank's entries."""
        found = values.new_zeros(sum(self._sizes) * self._width).index_add_(0, column, values)
        mine, theirs, _ = found.reshape(sum(self._sizes), self._width).split_with_sizes(self._sizes)
        return self._exchange.give_back(mine, theirs).reshape(self._own_shape)

    @property
    def _own_shape(self) -> tuple[int, ...]:
        """The shape of this rank's part of the tensor."""
        return len(rows_of(self.shape[0], self.mesh.get_local_rank(), self.mesh.size())), *self.shape[1:]

    def columns(self) -> Tensor:
        """Return the entries of the flattened tensor that are read: this rank's own in order, then those of others."""
        own = self._exchange.own
        units = torch.cat(
            [torch.arange(own.start, own.stop, device=self._index.device), self._exchange.wanted]
        )
        return self._entries(units)

    def _places(self, column: Tensor) -> Tensor:
        """Return where entries of the flattened local tensor stand among `columns`."""
        width = max(self._width, 1)
        return self._index[column // width] * width + column % width

    def _entries_by_rank(self) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return which entries among `columns` each other rank reads of this one, and which this one reads of it."""
        length = len(self._exchange.own)
        places = torch.arange(length, length + len(self._exchange.wanted), device=self._index.device)
        return (
            {rank: self._entries(units) for rank, units in self._exchange.sends.items()},
            {rank: self._entries(places[part]) for rank, part in self._exchange.receives.items()},
        )

    def _entries(self, units: Tensor) -> Tensor:
        """Return the entries of units, in order."""
        return (units[:, None] * self._width + torch.arange(self._width, device=units.device)).reshape(-1)


def _runs(index: Tensor, begins: list[int]) -> list[tuple[int, int, slice]] | None:
    """Return an index table as slices: of which of several lists, laid end to end, from where to where; or None."""
    if not len(index):
        return []
    source = torch.searchsorted(torch.tensor(begins, device=index.device), index, right=True) - 1
    cuts = ((index.diff() != 1) | (source.diff() != 0)).nonzero()[:, 0] + 1
    if len(cuts) >= MOST_RUNS:
        return None
    ends = [0, *cuts.tolist(), len(index)]
    return [
        (int(source[first]), int(index[first]) - begins[int(source[first])], slice(first, last))
        for first, last in pairwise(ends)
    ]


def _checked(shape: tuple[int, ...], positions: Any, device: torch.device) -> Tensor:
    """Return the positions as a tensor."""
    if not shape:
        raise ValueError("Halo: a tensor without dims cannot be sharded; give it one, with x[None]")
    read = torch.as_tensor(positions if isinstance(positions, Tensor) else list(positions), device=device)
    if read.numel() == 0:
        read = read.long()
    if read.dim() != 1 or read.dtype.is_floating_point or read.dtype is torch.bool:
        raise ValueError(
            f"Halo: positions must be a vector of integers, got shape {tuple(read.shape)} and {read.dtype}"
        )
    beyond = read[(read < 0) | (read >= shape[0])]
    if beyond.numel():
        raise ValueError(f"Halo: positions must be in [0, {shape[0]}), got {beyond[:5].tolist()}")
    return read.long()
