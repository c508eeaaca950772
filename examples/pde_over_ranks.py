"""An implicit step of the Brusselator on a grid that is shared out over processes: no rank ever holds the whole.

    torchrun --nproc-per-node 2 examples/pde_over_ranks.py --side 128      (or: make example-distributed)

Each rank has some lines of the grid. Its function reads one line more on each side, the halo, and its Jacobian knows
which unknowns of the others these are. Newton's method solves u − h f(u) = u₀; each of its steps solves with I − hJ by
GMRES, whose products exchange halos, preconditioned by the block of each rank's own unknowns. Without torchrun it runs
as a single rank.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from torchjac.distributed import Halo, local_rows, value_and_local_jacobian

A, B, ALPHA = 3.4, 1.0, 10.0


def brusselator(state: Tensor, n: int) -> Tensor:
    """∂u/∂t and ∂v/∂t on some lines of an n × n periodic grid, (lines, 2, n), given one line more on each side."""
    inner = state[1:-1]
    u, v = inner.unbind(1)
    around = state[:-2] + state[2:] + inner.roll(1, 2) + inner.roll(-1, 2) - 4 * inner
    reaction = u**2 * v
    rates = torch.stack([B + reaction - (A + 1) * u, A * u - reaction], 1)
    return rates + ALPHA * (n - 1) ** 2 * around


def initial_state(rows: range, n: int) -> Tensor:
    """The state at t = 0 on some lines: u = 22 (y(1−y))^(3/2), v = 27 (x(1−x))^(3/2)."""
    y = torch.linspace(0, 1, n, dtype=torch.float64)
    x = y[rows.start : rows.stop, None]
    both = [
        (22 * (y * (1 - y)) ** 1.5).expand(len(rows), n),
        (27 * (x * (1 - x)) ** 1.5).expand(len(rows), n),
    ]
    return torch.stack(both, 1)


def halo_of(mesh: DeviceMesh, n: int) -> Halo:
    """This rank's lines, with one more on each side."""
    rows = local_rows(n, mesh)
    around = range(rows.start - 1, rows.stop + 1) if rows else ()
    return Halo(mesh, (n, 2, n), [line % n for line in around])


def on_mesh(local: Tensor, mesh: DeviceMesh, n: int) -> DTensor:
    """The state whose lines on this rank are given."""
    shape, strides = torch.Size((n, 2, n)), (2 * n, n, 1)
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=strides)


def length(vector: DTensor) -> float:
    """The root of the sum of squares over all ranks."""
    return float(vector.square().sum().full_tensor().sqrt())


def main(argv: list[str] | None = None) -> None:
    """Make a step, and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=128, help="points along each side of the grid")
    parser.add_argument("--time-step", type=float, default=1e-3, help="length of the step in time")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def tell(text: str) -> None:
        if mesh.get_rank() == 0:
            print(text, flush=True)

    n, h = options.side, options.time_step
    rows, halo = local_rows(n, mesh), halo_of(mesh, n)
    tell(f"{n} × {n} grid, {2 * n * n:,} unknowns, on {mesh.size()} ranks of {len(rows)} lines")
    tell(f"each product exchanges {8 * halo.received:,} bytes with the neighbours of a rank")
    evaluate = value_and_local_jacobian(lambda state: brusselator(state, n), halo)
    before = on_mesh(initial_state(rows, n), mesh, n)
    state, begun = before, perf_counter()
    for iteration in range(20):
        rates, J = evaluate(state)
        residual = state - h * rates - before
        size = length(residual)
        tell(f"Newton {iteration}: residual {size:.2e}")
        if size < 1e-10 * length(before):
            break
        step = (-h * J).add_diagonal(1)
        state = state - step.solve(residual, "gmres", "block-jacobi", tolerance=1e-6)
    seconds = perf_counter() - begun
    tell(f"J has {J.nnz:,} nonzeros, {J.local.stored:,} numbers are stored on this rank; {seconds:.1f} s")
    whole = state.full_tensor()  # only to look at it
    tell(
        f"concentrations from {whole.min():.4f} to {whole.max():.4f}, total {whole.sum() / n**2:.12f} a point"
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
