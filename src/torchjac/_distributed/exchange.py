"""The exchange of a halo: who sends what to whom, found out once, and done by messages between neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from .group import device_of, exchanging

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Exchange:
    """A plan by which ranks send each other units of a list that is cut into parts, those that others read.

    Made on all ranks at once: each tells the others what it reads of them.

    Args:
        mesh: the ranks.
        ends: where the part of each rank ends.
        wanted: the units that this rank reads and does not have, sorted, each once.
    """

    def __init__(self, mesh: DeviceMesh, ends: Sequence[int], wanted: Tensor) -> None:
        self.mesh, self.wanted = mesh, wanted
        me, device = mesh.get_local_rank(), device_of(mesh)
        self.own = range(ends[me - 1] if me else 0, ends[me])
        upto = torch.searchsorted(wanted, torch.tensor(ends, device=wanted.device)).tolist()
        parts = [slice(begin, end) for begin, end in zip([0, *upto], upto, strict=False)]
        #: For each rank that this one reads of, the places among those wanted that it fills.
        self.receives = {rank: part for rank, part in enumerate(parts) if part.stop > part.start}
        counts = torch.tensor([part.stop - part.start for part in parts], device=device)
        asked = torch.empty_like(counts)
        exchanging(lambda: dist.all_to_all_single(asked, counts, group=mesh.get_group()))
        lists = {rank: counts.new_empty(count) for rank, count in enumerate(asked.tolist()) if count}
        self._swap({rank: wanted[part].to(device) for rank, part in self.receives.items()}, lists)()
        #: For each rank that reads of this one, which of its units it reads.
        self.sends = {rank: units.to(wanted.device) - self.own.start for rank, units in lists.items()}

    def fetch(self, mine: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """Begin to send those of this rank's units, its first dim, that others read.

        Return a tensor for those that come of them, and a call that returns when they have come.
        """
        arrived = mine.new_empty(len(self.wanted), *mine.shape[1:])
        wait = self._swap(
            {rank: mine.index_select(0, units) for rank, units in self.sends.items()},
            {rank: arrived[part] for rank, part in self.receives.items()},
        )
        return arrived, wait

    def give_back(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Transpose `fetch`: send what is at hand for units of others to them; add what comes to this rank's."""
        arrived = {rank: mine.new_empty(len(units), *mine.shape[1:]) for rank, units in self.sends.items()}
        self._swap({rank: theirs[part].contiguous() for rank, part in self.receives.items()}, arrived)()
        for rank, units in self.sends.items():
            mine.index_add_(0, units, arrived[rank])
        return mine

    def _swap(self, sent: dict[int, Tensor], into: dict[int, Tensor]) -> Callable[[], None]:
        """Begin to send tensors to ranks and to receive others, and return a call that returns at the end.

        Only ranks that have something for each other talk.
        """
        group = self.mesh.get_group()
        works = [dist.P2POp(dist.isend, given, group=group, group_peer=rank) for rank, given in sent.items()]
        works += [dist.P2POp(dist.irecv, given, group=group, group_peer=rank) for rank, given in into.items()]
        begun = exchanging(lambda: dist.batch_isend_irecv(works)) if works else []

        def wait() -> None:
            exchanging(lambda: [work.wait() for work in begun])
            works.clear()  # until now they held what is sent and what it comes into

        return wait
