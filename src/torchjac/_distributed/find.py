"""The two ways to a sharded Jacobian: of a function that every rank runs whole, or of one that is local to the rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._answers.arithmetic import mapped
from .._answers.forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks
from .._answers.operator import Jacobian
from .._blocks.block import Block, labels
from .._blocks.block_views import joined
from .._blocks.maps import positions
from .._capture.state import undisturbed
from .._torch import pytree
from .._transforms.jacobian import jacobian as whole_jacobian
from .._transforms.jacobian import value_and_jacobian as whole_value_and_jacobian
from .fsdp import fsdp_refused
from .group import check_mesh, exchanging, together
from .halo import Halo
from .layout import part_of, rows_of, sharded
from .sharded import ShardedJacobian

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def jacobian(
    func: Callable[..., Any], mesh: DeviceMesh, argnums: int | tuple[int, ...] = 0
) -> Callable[..., Any]:
    """Compute the Jacobian of a function that every rank runs whole, its rows shared out over the ranks.

    Each rank differentiates its rows only, as ``Shard(0)`` cuts the output's first dim. The ranks exchange one integer,
    which tells whether all of them came through. The function and its arguments must be the same on all.

    Args:
        func: as for `torchjac.jacobian`; each output has at least one dim.
        mesh: the ranks, a `DeviceMesh` of one dim.
        argnums: the arguments to differentiate by. A `DTensor` among the arguments is gathered, and the function called
            with the whole tensor.

    Returns:
        A function of the same arguments, called on all ranks, that gives a tree like that of `torchjac.jacobian`, of
        `ShardedJacobian`s.

    Raises:
        TypeError: if ``mesh`` is no mesh.
        ValueError: if an output or a differentiated input has no dims.
        NotImplementedError: if ``func`` calls a module sharded by FSDP; its parameters are taken as arguments.
        RankError: where another rank raised, or is gone.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torch.distributed.tensor import Shard, distribute_tensor
        >>> import torchjac.distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh = init_device_mesh("cpu", (1,))  # under torchrun: one rank for each process
        >>> J = torchjac.distributed.jacobian(lambda x: x[1:] - x[:-1], mesh)(torch.zeros(5))
        >>> J
        ShardedJacobian(shape=(4,)+(5,), ranks=1, dtype=torch.float32)
        >>> (J @ distribute_tensor(torch.arange(5.0) ** 2, mesh, [Shard(0)])).full_tensor()
        tensor([1., 3., 5., 7.])
        >>> dist.destroy_process_group()
    """
    mesh = check_mesh(mesh, "jacobian")
    me, ranks = mesh.get_local_rank(), mesh.size()

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = exchanging(lambda: pytree.tree_map(_gathered, (args, kwargs)))
        shapes: list[tuple[int, ...]] = []

        def own_rows(*args: Any, **kwargs: Any) -> Any:
            shapes.clear()
            return pytree.tree_map(cut, func(*args, **kwargs))

        def cut(output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output  # what it is, `jacobian` tells
            if not output.dim():
                raise ValueError(
                    "jacobian: an output has no dims, so no rows to share out; give it one, with y[None]"
                )
            shapes.append(tuple(output.shape))
            mine = rows_of(output.shape[0], me, ranks)
            return output[mine.start : mine.stop]

        with together(mesh):
            with undisturbed(), fsdp_refused():
                tree = whole_jacobian(own_rows, argnums)(*args, **kwargs)
            leaves, spec = pytree.tree_flatten(tree)
            each = len(leaves) // max(len(shapes), 1)
            found = [_compacted(leaf, shapes[number // each], mesh) for number, leaf in enumerate(leaves)]
        return pytree.tree_unflatten(found, spec)

    return jacobian_of


def local_jacobian(
    func: Callable[[Tensor], Tensor], halo: Halo, out_shape: Sequence[int] | None = None
) -> Callable[[DTensor], ShardedJacobian]:
    """Return the Jacobian of a function that each rank runs on its part alone, with the halo around it.

    Nothing of the size of the whole is held by any rank.

    Args:
        func: takes what ``halo.gather`` gives and returns this rank's rows of the output, as `local_rows` tells them.
            It is not called on a rank without rows.
        halo: which positions of the input this rank reads.
        out_shape: the shape of the whole output; that of the input by default.

    Returns:
        A function of a `DTensor` with ``Shard(0)``, called on all ranks.

    Raises:
        TypeError: if the argument is no DTensor.
        ValueError: if it does not fit, or ``func`` gives another shape than this rank's rows have.
        RankError: where another rank raised, or is gone.

    Example:
        >>> import torch
        >>> import torch.distributed as dist
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> from torch.distributed.tensor import Shard, distribute_tensor
        >>> from torchjac.distributed import Halo, local_jacobian, local_rows
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> mesh, n = init_device_mesh("cpu", (1,)), 6
        >>> rows = local_rows(n, mesh)
        >>> ring = Halo(mesh, (n,), [i % n for i in range(rows.start - 1, rows.stop + 1)])
        >>> J = local_jacobian(lambda u: u[2:] - 2 * u[1:-1] + u[:-2], ring)(
        ...     distribute_tensor(torch.zeros(n), mesh, [Shard(0)])
        ... )
        >>> J.diagonal().full_tensor(), J.nnz
        (tensor([-2., -2., -2., -2., -2., -2.]), 18)
        >>> dist.destroy_process_group()
    """
    find = value_and_local_jacobian(func, halo, out_shape)
    return lambda values: find(values)[1]


def value_and_local_jacobian(
    func: Callable[[Tensor], Tensor], halo: Halo, out_shape: Sequence[int] | None = None
) -> Callable[[DTensor], tuple[DTensor, ShardedJacobian]]:
    """Return the value of a function that is local to each rank, as a `DTensor`, and its `local_jacobian`."""
    if not isinstance(halo, Halo):
        raise TypeError(
            f"local_jacobian: halo must be a Halo, got {type(halo).__name__}; Halo(mesh, shape, read) tells what this "
            "rank reads"
        )
    shape = tuple(halo.shape if out_shape is None else out_shape)
    mesh = halo.mesh
    if not shape:
        raise ValueError(
            "local_jacobian: the output has no dims, so no rows to share out; give it one, with y[None]"
        )
    mine = rows_of(shape[0], mesh.get_local_rank(), mesh.size())
    own_shape = (len(mine), *shape[1:])

    def found(values: DTensor) -> tuple[DTensor, ShardedJacobian]:
        dtype = getattr(values, "dtype", torch.get_default_dtype())
        read = halo._fetched(part_of(values, halo.shape, dtype, mesh, "local_jacobian: values"))
        with together(mesh):
            if not mine:
                value: Tensor = read.new_zeros(own_shape)
                local = Jacobian(SumOfBlocks(own_shape, halo.local_shape, read.dtype, read.device, ()))
            else:
                value, local = whole_value_and_jacobian(func)(read)
                if not isinstance(local, Jacobian) or local.out_shape != own_shape:
                    shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise ValueError(
                        "local_jacobian: func must give this rank's rows of the output, a tensor of shape "
                        f"{own_shape}, got {shown}"
                    )
        jacobian = ShardedJacobian(local.detach(), mesh, shape, halo.shape, lambda: halo)
        return sharded(value.detach(), shape, mesh), jacobian

    return found


def _gathered(leaf: Any) -> Any:
    from torch.distributed.tensor import DTensor

    return leaf.full_tensor() if isinstance(leaf, DTensor) else leaf


def _compacted(rows: Jacobian, out_shape: tuple[int, ...], mesh: DeviceMesh) -> ShardedJacobian:
    """Return the rows of this rank by the part of the input that they read, in storage of their own."""
    in_shape = rows.in_shape
    if not in_shape:
        raise ValueError(
            "jacobian: an input has no dims, so no columns to share out; give it one, with x[None]"
        )
    entries = _entries_read(rows.form)
    each = max(prod(in_shape[1:]), 1)
    first, last = (int(entries[0]) // each, int(entries[-1]) // each + 1) if len(entries) else (0, 0)
    local = rows[(slice(None),) * len(rows.out_shape) + (slice(first, last),)]
    form = local.detach().form
    local = local._with(mapped(form, _of_its_own, form))
    halo = partial(Halo._of_entries, mesh, in_shape, entries, range(first, last))
    return ShardedJacobian(local, mesh, out_shape, in_shape, halo)


def _entries_read(form: Form) -> Tensor:
    """Return the entries of the flattened input that some block names, sorted."""
    if isinstance(form, ProductOfFactors):
        return _entries_read(form.factors[-1])
    if isinstance(form, LowRankUpdate):
        found: Tensor = torch.cat([_entries_read(form.rest), _entries_read(form.low)]).unique()
        return found
    flags = torch.zeros(prod(form.in_shape), dtype=torch.bool, device=form.device)
    for block in form.blocks:
        if all(label.size for label in labels(block)):
            at = joined(block.wrt, form.in_shape)
            flags[positions(at, at.labels, form.device)] = True
    return flags.nonzero()[:, 0]


def _of_its_own(block: Block) -> Block:
    """Return a block whose value does not keep alive a larger tensor that it is a view of."""
    value = block.value
    if isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes:
        return block._replace(value=value.clone())
    return block
