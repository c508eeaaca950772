"""JᵀWJ of a batch as a sparse matrix, and the sum of such matrices over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from .._answers.bordered import side_by_side
from .._answers.operator import Jacobian
from .group import exchanging

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

#: The layouts in which a gram matrix can be given
LAYOUTS = (torch.strided, torch.sparse_coo, torch.sparse_csr)


def sparse_gram(jacobians: Sequence[Jacobian], weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return JᵀWJ of the Jacobians of one output by several inputs, as a coalesced COO matrix."""
    whole = jacobians[0]._with(side_by_side([J.to(dtype).form for J in jacobians]))
    return whole.gram(None if weight is None else weight.to(dtype)).to_sparse()


def add_over_ranks(matrix: Tensor, mesh: DeviceMesh) -> Tensor:
    """Return the sum over ranks of sparse matrices; each rank is sent the nonzeros of all of them."""
    group, matrix = mesh.get_group(), matrix.coalesce()
    counts = torch.empty(mesh.size(), dtype=torch.int64, device=matrix.device)
    exchanging(lambda: dist.all_gather_into_tensor(counts, counts.new_tensor([matrix._nnz()]), group=group))
    most = int(counts.max())

    def gathered(mine: Tensor) -> Tensor:
        """Return what all ranks have, one after the other; what is sent is padded to the most that one has."""
        padded = mine.new_zeros(most, *mine.shape[1:])
        padded[: len(mine)] = mine
        whole = mine.new_empty(mesh.size() * most, *mine.shape[1:])
        exchanging(lambda: dist.all_gather_into_tensor(whole, padded, group=group))
        parts = zip(whole.split(most or 1), counts.tolist(), strict=False)
        return torch.cat([whole[:0], *(part[:count] for part, count in parts)])

    places = gathered(matrix.indices().mT.contiguous()).mT
    values = gathered(matrix.values())
    return torch.sparse_coo_tensor(places, values, matrix.shape, device=values.device).coalesce()
