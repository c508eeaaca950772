"""Jacobians over ranks, and sums over data: time and memory of each rank, beside one process.

    python benchmarks/distributed.py                                all of it, some minutes
    python benchmarks/distributed.py --only brusselator --side 256  a part, smaller
    python benchmarks/distributed.py --text benchmarks/results/distributed.txt

- brusselator: on an n × n grid, the Jacobian found by `local_jacobian` and its product with a vector, on 1, 2 and 4
  gloo ranks of one thread each, beside `torchjac.jacobian` of the whole grid in one process. Memory is what a rank's
  resident peak is above what it held before. What the machine allows stands beside it: the same ranks call the function
  alone, and add one vector of the state's size to a multiple of another (a triad), of which each has its part.
- ggn: Σ JᵀWJ of a network over 60,000 samples; kernel: all tiles of its tangent kernel on and below the diagonal, one
  logit. The resident peak is that of the whole process.

Both times are the least of many turns, the wall time from the moment when all ranks begin to that when the last has
ended: what others on the machine take comes and goes. Where ranks outnumber cores the processor time of the slowest
rank tells what a core for each would take.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from examples.ggn_over_data import images, weight  # noqa: E402
from examples.pde_over_ranks import brusselator, halo_of, initial_state, on_mesh  # noqa: E402

import torchjac  # noqa: E402
from benchmarks.memory import field  # noqa: E402
from torchjac import accumulate, functional_call  # noqa: E402
from torchjac.distributed import local_jacobian, local_rows  # noqa: E402

#: Turns of each timing; the first is not counted.
TURNS = 60

#: What is timed, by wall and by processor
CALLS = ("find", "J @ v", "f alone", "triad")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


class Turns:
    """The wall and processor time of calls, each begun by all ranks at once."""

    def __init__(self, barrier: Callable[[], Any]) -> None:
        self.barrier = barrier

    def __call__(self, call: Callable[[], Any]) -> tuple[float, float]:
        """The least wall time and the least time of the thread."""
        walls, processor = [], []
        for _ in range(TURNS + 1):
            self.barrier()
            wall, used = perf_counter(), thread_time()
            call()
            processor.append(thread_time() - used)
            self.barrier()
            walls.append(perf_counter() - wall)
        return min(walls[1:]), min(processor[1:])


def peak_of(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives, and the resident peak above what was held before it.

    Meanwhile what is freed goes back to the system at once: the peak is of what is held, not of how an allocator cuts
    it. For times the allocator keeps what is freed, as it does by itself after a while.
    """
    libc = ctypes.CDLL(None)  # glibc's: benchmarks/memory.py needs Linux too
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 18)
    Path("/proc/self/clear_refs").write_text("5")
    before = field("VmRSS")
    found = call()
    peak = field("VmHWM") - before
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    return found, peak


def timed(
    turns: Turns, find: Callable[[], Any], product: Callable[[], Any], alone: Callable[[], Any], part: Tensor
) -> list[float]:
    """The wall and processor times of finding, of a product, of the function alone and of a triad on a rank's part."""
    other, into = torch.rand_like(part), torch.empty_like(part)
    calls = (find, product, alone, lambda: torch.add(part, other, alpha=2.0, out=into))
    return [seconds for call in calls for seconds in turns(call)]


def whole_grid(state: Tensor, n: int) -> Tensor:
    """The function of `brusselator` on all lines of the torus."""
    return brusselator(torch.cat([state[-1:], state, state[:1]]), n)


def one_process(n: int, folder: str) -> None:
    """The same without ranks."""
    torch.set_num_threads(1)
    torchjac.jacobian(lambda x: whole_grid(x, 8))(
        initial_state(range(8), 8)
    )  # what is imported and made once
    state = initial_state(range(n), n)
    find = torchjac.jacobian(lambda x: whole_grid(x, n))
    J, found = peak_of(lambda: find(state))
    product = peak_of(lambda: J @ state)[1]
    times = timed(
        Turns(lambda: None), lambda: find(state), lambda: J @ state, lambda: whole_grid(state, n), state
    )
    torch.save([(*times, found, product, 0)], f"{folder}/told")


def rank(number: int, ranks: int, n: int, folder: str) -> None:
    """One rank's part of the grid."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    local_jacobian(lambda x: brusselator(x, 8), halo_of(mesh, 8))(
        on_mesh(initial_state(local_rows(8, mesh), 8), mesh, 8)
    )
    state = on_mesh(initial_state(local_rows(n, mesh), n), mesh, n)
    halo = halo_of(mesh, n)
    find = local_jacobian(lambda x: brusselator(x, n), halo)
    J, found = peak_of(lambda: find(state))
    product = peak_of(lambda: J @ state)[1]
    part, read = state.to_local(), halo.gather(state)
    times = timed(
        Turns(dist.barrier), lambda: find(state), lambda: J @ state, lambda: brusselator(read, n), part
    )
    mine = (*times, found, product, 8 * halo.received)
    all_ranks: list[Any] = [None] * ranks
    dist.all_gather_object(all_ranks, mine)
    if number == 0:
        torch.save(all_ranks, f"{folder}/told")
    dist.destroy_process_group()


def started(function: Callable[..., None], count: int, *args: Any) -> list[tuple[float, ...]]:
    """What processes tell that are started anew."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(function, (*args, folder), nprocs=count)
        told: list[tuple[float, ...]] = torch.load(f"{folder}/told", weights_only=True)
        return told


def _alone(_: int, n: int, folder: str) -> None:
    one_process(n, folder)


def grid_table(n: int, ranks: list[int]) -> list[str]:
    """The lines of the tables of the grid: what it takes, and how much faster several ranks are than one."""
    counts = [0, *ranks]
    told = {}
    for count in counts:
        results = started(rank, count, count, n) if count else started(_alone, 1, n)
        told[count] = [max(column) for column in zip(*results, strict=True)]
    names = {count: f"{count} rank{'s' * (count > 1)}" if count else "one process" for count in counts}
    lines = [
        f"Brusselator {n} × {n}, {2 * n * n:,} unknowns; times in ms, slowest rank; memory in MB, largest rank",
        f"{'':14}" + "".join(f"{name:>9}{'cpu':>9}" for name in CALLS)
        + f"{'peak':>9}{'product':>9}{'halo bytes':>12}{'peak · P':>10}",
    ]  # fmt: skip
    for count, (*times, found, product, halo) in told.items():
        share = f"{count * found / told[0][-3]:>10.2f}" if count else ""
        shown = "".join(f"{seconds * 1e3:>9.1f}" for seconds in times)
        lines.append(
            f"{names[count]:14}{shown}{found / 1e6:>9.1f}{product / 1e6:>9.1f}{int(halo):>12,}{share}"
        )
    lines += ["peak · P : of one process's peak for finding, goal 1.15", ""]
    if 1 in told:
        lines.append(
            "times faster than one rank, goal 1.7 for finding and products; the last two are what the machine allows"
        )
        for count in [count for count in ranks if count > 1]:
            faster = "".join(f"{a / b:>9.2f}" for a, b in zip(told[1][:-3], told[count][:-3], strict=True))
            lines.append(f"{names[count]:14}{faster}")
    return [*lines, ""]


def network(hidden: int) -> tuple[Callable[..., Tensor], dict[str, Tensor]]:
    """A network from 64 pixels to ten logits, as a function of its parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return lambda parameters, x, label: functional_call(model, parameters, (x,)), parameters


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _ggn(_: int, samples: int, folder: str) -> None:
    torch.set_num_threads(1)
    func, parameters = network(16)
    data = torch.utils.data.DataLoader(images(samples), batch_size=1000)
    begun = thread_time()
    found = accumulate.sums(func, parameters, data, ("gram",), weight=weight)
    torch.save([(thread_time() - begun, _resident(), found.gram.shape[0])], f"{folder}/told")


def _kernel(_: int, samples: int, folder: str) -> None:
    torch.set_num_threads(1)
    func, parameters = network(16)
    data = torch.utils.data.DataLoader(images(samples), batch_size=3000)

    def one_logit(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        return func(parameters, x, label)[:, 0]

    begun, entries = thread_time(), 0
    for tile in accumulate.kernel_tiles(one_logit, parameters, data):
        entries += tile.values.numel()
    torch.save([(thread_time() - begun, _resident(), entries)], f"{folder}/told")


def data_table(samples: int, only: str | None) -> list[str]:
    """The lines of the sums over data."""
    lines = [
        f"{samples:,} samples, a network 64-16-10; processor time, resident peak of the process (goal 2 GiB)"
    ]
    if only != "kernel":
        ((seconds, peak, size),) = started(_ggn, 1, samples)
        lines.append(f"{'Σ JᵀWJ':18}{seconds:>9.1f} s{peak:>9.2f} GiB   {int(size):,} × {int(size):,}")
    if only != "ggn":
        ((seconds, peak, size),) = started(_kernel, 1, samples)
        lines.append(
            f"{'tangent kernel':18}{seconds:>9.1f} s{peak:>9.2f} GiB   {int(size):,} entries in tiles"
        )
    return [*lines, ""]


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["brusselator", "ggn", "kernel"])
    parser.add_argument("--side", type=int, default=1024, help="points along each side of the grid")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--text", type=Path, help="write the tables there too")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lines = [f"torch {torch.__version__}, gloo, {os.cpu_count()} cores, one thread a rank", ""]
    if options.only in (None, "brusselator"):
        lines += grid_table(options.side, options.ranks)
    if options.only != "brusselator":
        lines += data_table(options.samples, options.only)
    print("\n".join(lines), flush=True)
    if options.text:
        options.text.write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
