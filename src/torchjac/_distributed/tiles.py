"""The tangent kernel of a data set, Σ JJᵀ over the parameters, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._accumulate.progress import import_tqdm
from .._torch import pytree
from .._transforms.jacobian import jacobian
from .batches import arguments, at_least_one_dim, check_batches

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Tile(NamedTuple):
    """The part of a tangent kernel between two batches.

    Attributes:
        number: its place in the order of all tiles; to go on after it, ``start=number + 1``.
        rows: where the samples of the first batch stand in the data.
        columns: where those of the second stand; they are never after the first.
        values: K[n, o…, m, q…] = Σ_p ∂f[n, o…]/∂p · ∂f[m, q…]/∂p.
    """

    number: int
    rows: slice
    columns: slice
    values: Tensor


def kernel_tiles(
    func: Callable[..., Tensor],
    parameters: Any,
    data: Iterable[Any],
    *,
    start: int = 0,
    progress: bool = False,
    mesh: DeviceMesh | None = None,
) -> Iterator[Tile]:
    """Return the tangent kernel K = Σ J Jᵀ of a data set, tile by tile: all that is on its diagonal and below.

    The tile of a pair of batches needs the Jacobians of both, which are found anew for each of its tiles but the first
    one's: what is held is two of them and a tile. `Tile` tells where a tile belongs; the kernel is symmetric.

    Args:
        func: as for `sums`; the first dim of its output is that of the samples.
        parameters: as for `sums`.
        data: batches as for `sums`, in an iterable that can be gone through again and again and gives the same each
            time: a list, or a `DataLoader` that does not shuffle.
        start: the number of the first tile that is wanted, to go on after those that are there.
        progress: whether to show a bar on standard error (needs tqdm).
        mesh: ranks that share the tiles: each gives every so manieth. Nothing is exchanged.

    Raises:
        TypeError: if the data can be gone through once only.
        ImportError: if ``progress`` is set and tqdm is not installed.

    Example:
        >>> import torch
        >>> from torchjac import accumulate
        >>> data = list(torch.eye(3).split(2))
        >>> K = torch.zeros(3, 3)
        >>> for tile in accumulate.kernel_tiles(lambda w, x: x @ w, torch.ones(3), data):
        ...     K[tile.rows, tile.columns] = tile.values
        ...     print(tile.number, tuple(tile.values.shape))
        0 (2, 2)
        1 (1, 2)
        2 (1, 1)
        >>> K.diagonal()
        tensor([1., 1., 1.])
    """
    check_batches(data, "kernel_tiles")
    if iter(data) is data:
        raise TypeError(
            "kernel_tiles: the data are gone through once for each batch, and an iterator is used up after the first "
            "time; give a list, or a DataLoader"
        )
    return _tiles(func, parameters, data, start, progress, mesh)


def _tiles(
    func: Callable[..., Tensor],
    parameters: Any,
    data: Iterable[Any],
    start: int,
    progress: bool,
    mesh: DeviceMesh | None,
) -> Iterator[Tile]:
    parameters = pytree.tree_map(Tensor.detach, parameters)
    function = at_least_one_dim(func, "kernel_tiles")
    of = jacobian(function)
    rank, ranks = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
    ends = [0]
    with torch.no_grad():
        for batch in data:
            ends.append(ends[-1] + function(parameters, *arguments(batch)).shape[0])
    count = len(ends) - 1
    bar = import_tqdm()(total=count * (count + 1) // 2, desc="tiles", leave=False) if progress else None

    def rows_of(batch: Any) -> tuple[list[Tensor], tuple[int, ...]]:
        leaves = pytree.tree_leaves(of(parameters, *arguments(batch)))
        return [J.to_dense().reshape(J.shape[: len(J.out_shape)].numel(), -1) for J in leaves], leaves[
            0
        ].out_shape

    for i, batch in enumerate(data):
        first = i * (i + 1) // 2
        wanted = [j for j in range(i + 1) if first + j >= start and (first + j) % ranks == rank]
        if bar is not None:
            bar.update(i + 1)
        if not wanted:
            continue
        left, out_shape = rows_of(batch)
        del batch
        for j, other in enumerate(islice(data, i + 1)):
            if j not in wanted:
                continue
            right, other_shape = (left, out_shape) if j == i else rows_of(other)
            values = left[0] @ right[0].mT
            for a, b in zip(left[1:], right[1:], strict=True):
                values.addmm_(a, b.mT)
            rows, columns = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
            yield Tile(first + j, rows, columns, values.reshape(*out_shape, *other_shape))
    if bar is not None:
        bar.close()
