"""Programs on the ranks of real process groups: started once for many of them, as starting takes the longest."""

from __future__ import annotations

import datetime
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import DeviceMesh

#: Most ranks of a group; smaller groups are parts of it.
MOST = 4

#: Nothing may wait longer for another rank.
TIMEOUT = datetime.timedelta(seconds=60)


def begin(rank: int, ranks: int, folder: Path, timeout: datetime.timedelta = TIMEOUT) -> None:
    """Join the process group whose store is a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks, timeout=timeout
    )


def mesh_of(ranks: int, timeout: datetime.timedelta) -> DeviceMesh | None:
    """The mesh of the first few ranks, made by all of them; it would not inherit the timeout of the default group."""
    group = dist.new_group(list(range(ranks)), timeout=timeout)
    return DeviceMesh.from_group(group, "cpu", mesh=list(range(ranks))) if dist.get_rank() < ranks else None


def _work(rank: int, programs: dict[str, Callable[[DeviceMesh], Any]], folder: Path) -> None:
    """Run programs on the first 1, 2, 3 and 4 ranks, and write what each gives, or its error."""
    begin(rank, MOST, folder)
    found = {}
    for ranks in range(1, MOST + 1):
        mesh = mesh_of(ranks, TIMEOUT)
        for name, program in programs.items() if mesh else ():
            torch.manual_seed(0)
            try:
                found[name, ranks] = (program(mesh), "")
            except BaseException:  # a failed check of pytest is no Exception
                found[name, ranks] = (None, traceback.format_exc())
    torch.save(found, folder / f"rank{rank}")
    dist.destroy_process_group()


def start(function: Callable[..., None], ranks: int, *args: Any) -> Any:
    """Start processes by a server that has imported what they need; they are to be joined."""
    mp.set_forkserver_preload(
        ["torch.distributed.tensor", "torchjac.distributed", "tests._distributed.programs"]
    )
    return mp.start_processes(function, (*args,), nprocs=ranks, join=False, start_method="forkserver")


def run_all(programs: dict[str, Callable[[DeviceMesh], Any]], folder: Path) -> list[dict[Any, Any]]:
    """What each program gives or raises, for each number of ranks, by rank."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = start(_work, MOST, programs, folder)
    while not context.join(timeout=240):
        pass
    return [torch.load(folder / f"rank{rank}", weights_only=False) for rank in range(MOST)]
