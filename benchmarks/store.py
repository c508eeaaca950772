"""A Jacobian on disk: how fast it is written, and what kills cost.

    python benchmarks/store.py --gigabytes 20      the table; so many must be free
    python benchmarks/store.py                     2 GB, in some minutes

A dense Jacobian, which takes next to nothing to find, is written by `torchjac.store.write` within a budget of memory,
and in turn with it as many bytes go to files of the size of its pieces, each synced as a store's are: that is the raw
rate. A first round of both is not counted, as disks that grow take longer for what was never written. The goal is 70 %
of the median, finding the numbers, checksums and the encoding by zarr included. All are written by fresh processes;
"resident" is the most that the writer held beyond what it held after a small store, which imports all and runs the
function. Then a store of 200 MB is written by processes that are killed at moments drawn at random, each resumed by the
next, and compared byte for byte with one that was never killed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import torchjac.store

RATE_GOAL, RESIDENT_GOAL = 0.7, 1e9
STATUS = Path("/proc/self/status")


def outer(x: Tensor) -> Tensor:
    """A function with a dense Jacobian that is cheap to find."""
    return x.sin().sum() * x.detach().cos()


def point(size: float) -> Tensor:
    """Where its Jacobian takes so many bytes."""
    return torch.linspace(0, 1, round((size / 8) ** 0.5), dtype=torch.float64)


def raw(folder: Path, piece: int, count: int) -> float:
    """The bytes a second at which so many files of a size go to the disk."""
    data = memoryview(torch.rand(piece // 8, dtype=torch.float64).numpy()).cast("B")
    folder = folder / "raw"
    folder.mkdir()
    begin = time.perf_counter()
    for number in range(count):
        file = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT)
        rest = data
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
        os.close(file)
    rate = piece * count / (time.perf_counter() - begin)
    shutil.rmtree(folder)
    return rate


def peak() -> int:
    """The most bytes that this process held."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def written(folder: Path, size: float, memory: str) -> dict[str, float]:
    """Write a store: the bytes, the seconds, and what was resident."""
    torchjac.store.write(outer, point(1e5), folder / "small", memory=memory, progress=False)
    x = point(size)
    before = peak()
    begin = time.perf_counter()
    J = torchjac.store.write(outer, x, folder / "store", memory=memory, progress=False)
    seconds = time.perf_counter() - begin
    resident = peak() - before
    rows, _ = next(J.pieces())  # all of them would be the whole
    return {
        "bytes": J.nnz * 8, "seconds": seconds, "resident": resident, "piece": len(rows) * J.shape[1] * 8,
        "pieces": -(-J.shape[0] // len(rows)),
    }  # fmt: skip


def told(*arguments: str) -> str:
    """What a fresh process prints."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.stdout


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the answer")
    parser.add_argument("--memory", default="1 GB", help="the budget")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", default=None, help="where to write; that of temporary files by default")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        how, what = options.one
        folder = Path(options.folder)
        found = (
            raw(folder, *json.loads(what)) if how == "raw" else written(folder, float(what), options.memory)
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        table(Path(name), options.gigabytes * 1e9, options.memory, options.rounds)
        if options.kills:
            script, folder = Path(__file__).parents[1] / "tests/_store/crash.py", Path(name) / "kills"
            folder.mkdir()
            killed = told(str(script), "moments", "dense", str(folder), str(options.kills))
            print(f"{'killed':16} {killed.strip()}: byte for byte as if not")


def table(folder: Path, size: float, memory: str, rounds: int) -> None:
    """The rates and the memory."""
    here = [__file__, "--folder", str(folder), "--memory", memory, "--one"]
    stores, raws = [], []
    for _ in range(rounds + 1):
        found = json.loads(told(*here, "store", str(size)))
        shutil.rmtree(folder / "store")
        shutil.rmtree(folder / "small")
        stores.append(found["bytes"] / found["seconds"] / 1e6)
        raws.append(json.loads(told(*here, "raw", json.dumps([found["piece"], found["pieces"]]))) / 1e6)
    share = median(stores[1:]) / median(raws[1:])
    resident = found["resident"]
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, memory={memory!r}")
    print(
        f"{'answer':16} {found['bytes'] / 1e9:.1f} GB, {found['pieces']} pieces of {found['piece'] / 1e6:.0f} MB"
    )
    print(f"{'raw, MB/s':16} {' '.join(f'{rate:5.0f}' for rate in raws[1:])}")
    print(f"{'store, MB/s':16} {' '.join(f'{rate:5.0f}' for rate in stores[1:])}")
    print(f"{'share of raw':16} {share:.0%} {_met(share >= RATE_GOAL, '70 %')}")
    print(f"{'resident':16} {resident / 1e6:.0f} MB {_met(resident <= RESIDENT_GOAL, '1 GB')}")


def _met(met: bool, goal: str) -> str:
    return f"(goal: {goal}, {'met' if met else 'missed'})"


if __name__ == "__main__":
    main()
