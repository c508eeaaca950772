"""The command: runs a process for each workload, prints the table, writes the JSON and the plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from . import goals, scaling, table, workloads  # noqa: F401 - workloads fills ENTRIES
from .timing import CLOCKS
from .workload import ENTRIES, Entry

ROOT = Path(__file__).resolve().parents[1]
DTYPES = ("float64", "float32")
Chosen = tuple[Entry, dict[str, Any]]
#: Whose memory is measured, where the dense answer or what it takes is large.
REMEMBERED = ("torchjac", "torch.func.jacrev", "torch.func.jacfwd", "hand")
LARGE = 50_000  # entries of the dense answer from which memory is measured
MAPPED = (
    1 << 20
)  # bytes from which the C library maps memory of its own for an allocation, in these processes
LIBRARIES = ("torch", "torchjac", "numpy", "jax", "asdex", "sparsejac", "casadi")


def machine(threads: int, clock: str) -> dict[str, Any]:
    """Where and with what the table is made."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    found = {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": clock,
    }
    found |= {"system": platform.system(), "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "missing" if library != "torchjac" else "this checkout"
    return found


def run(task: dict[str, Any], patience: float) -> list[dict[str, Any]]:
    """One task in a process of its own; what it had told when it ended, in whatever way."""
    threads = str(task["threads"])
    eigen = "true" if task["threads"] > 1 else "false"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}",
        "JAX_PLATFORMS": "cpu",
        # A first call is told as it is on a fresh machine: nothing compiled before is found again.
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    if "memory" in task:
        # Large tensors go back to the system where they end: what counts is what lives, not what a heap keeps.
        environment["MALLOC_MMAP_THRESHOLD_"] = str(MAPPED)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows"
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.child",
            json.dumps({**task, "out": str(out)}),
        ]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=patience
            )
            trouble = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]
            ended = f"ended with status {done.returncode}: {trouble}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ended = f"stopped after {patience:g} s"
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return rows + [{"ended": ended}] * bool(ended)


def results_of(waiting: list[Chosen], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a process has told, a result for each workload it came to: by dtype, then by "peer|answer".

    Where it ended early, that is said of the one it was at.
    """
    ended = [row["ended"] for row in rows if "ended" in row]
    count = sum("took" in row for row in rows) + len(ended)
    results = []
    for entry, size in waiting[:count]:
        workload = entry.make(**size)
        found: dict[str, Any] = {"name": workload.name, "tiny": workload.tiny, "goals": workload.goals}
        results.append(found | {"make": entry.make.__name__, "took": 0.0, "dtypes": {}})
    for row in rows:
        if "ended" not in row:
            add(results[row.pop("number")], row)
    if ended:
        results[-1]["ended"] = ended[0]
    return results


def add(result: dict[str, Any], row: dict[str, Any]) -> None:
    """Put a row into its result."""
    for key in ("took", "nodes"):
        if key in row:
            result[key] = row[key]
            return
    peers = result["dtypes"].setdefault(row.pop("dtype"), {})
    peers.setdefault(f"{row.pop('peer')}|{row.pop('answer')}", {}).update(row)


def chosen(options: argparse.Namespace) -> list[Chosen]:
    """The workloads asked for, each with its size; in the small size each function runs once."""
    found: dict[str, Chosen] = {}
    for entry in ENTRIES:
        size = entry.small if options.small else entry.full
        name = entry.make(**size).name
        if options.only.lower() in name.lower():
            found.setdefault(name, (entry, size))
    return list(found.values())


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The result of each workload asked for, a process for each family; after an early end one for the rest."""
    for _, family in groupby(chosen(options), lambda one: one[0].make.__module__):
        waiting = list(family)
        while waiting:
            results = results_of(waiting, run(task_of(options, waiting), options.patience * len(waiting)))
            if options.memory:
                remember(options, waiting, results)
            yield from results
            waiting = waiting[len(results) :]


def task_of(options: argparse.Namespace, waiting: list[Chosen]) -> dict[str, Any]:
    """What a process is told to do."""
    return {
        "workloads": [(entry.make.__name__, size) for entry, size in waiting],
        "dtypes": options.dtypes,
        "peers": options.peers,
        "compile": options.compile,
        "compile_all": options.compile_all,
        "seconds": options.seconds,
        "limit": options.limit,
        "threads": options.threads,
        "gigabytes": options.gigabytes,
        "clock": options.clock,
    }


def remember(options: argparse.Namespace, waiting: list[Chosen], results: list[dict[str, Any]]) -> None:
    """Add the memory of large dense answers."""
    numbers = [k for k, result in enumerate(results) if entries_of(result) >= LARGE]
    if numbers:
        task = {**task_of(options, [waiting[k] for k in numbers]), "memory": REMEMBERED}
        for row in run(task, options.patience * len(numbers)):
            if "ended" not in row and "took" not in row:
                add(results[numbers[row.pop("number")]], row)


def entries_of(found: dict[str, Any]) -> int:
    """How many numbers the dense answer holds."""
    return max(
        [row.get("entries", 0) for peers in found["dtypes"].values() for row in peers.values()], default=0
    )


def wrong(result: dict[str, Any]) -> bool:
    """Whether a workload could not be measured to its end, or a peer's answer is not ours."""
    rows = [row for peers in result["dtypes"].values() for row in peers.values()]
    return "ended" in result or any(row.get("status") == "differs" for row in rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description="torchjac beside its peers.")
    parser.add_argument("--only", default="", metavar="WORD", help="workloads whose name contains the word")
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="WORD", help="peers whose name contains a word"
    )
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument(
        "--compile",
        nargs="*",
        default=["float64"],
        choices=DTYPES,
        help="dtypes in which what takes seconds to compile runs too (default float64; nothing: none)",
    )
    parser.add_argument(
        "--compile-all", action="store_true", help="torch.compile of torch.func on every workload (an hour)"
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds for each peer (default 0.2)")
    parser.add_argument("--limit", type=float, default=15, help="longest first call, in seconds (default 15)")
    parser.add_argument(
        "--patience",
        type=float,
        default=400,
        help="longest time of a process for each of its workloads (default 400 s)",
    )
    parser.add_argument(
        "--clock", default="wall", choices=CLOCKS, help="cpu: for a machine busy with other things"
    )
    parser.add_argument("--gigabytes", type=float, default=10, help="memory of a process (default 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every library (default 1)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave memory out")
    parser.add_argument(
        "--no-scaling", dest="scaling", action="store_false", help="leave the curves over n out"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON")
    parser.add_argument("--plot", metavar="FILE", help="write the plot as PNG")
    parser.add_argument("--text", metavar="FILE", help="write the table as text too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for; the exit status is 1 where a process ended early or two answers differ."""
    options = parse(argv)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # so that the process of a workload ends with this one
    start = perf_counter()
    data: dict[str, Any] = {"machine": machine(options.threads, options.clock), "results": [], "curves": []}

    def keep() -> None:
        data["goals"] = goals.judge(data["results"])
        data["minutes"] = (perf_counter() - start) / 60
        if options.json:
            Path(options.json).write_text(json.dumps(data, indent=1))

    for found in measured(options):
        data["results"].append(found)
        print(table.progress(found), flush=True)
        keep()
    if options.scaling:
        data["curves"] = scaling.curves(options, run)
    keep()
    text = table.whole(data)
    print(text)
    if options.text:
        Path(options.text).write_text(text + "\n")
    if options.plot:
        from . import plot

        plot.save(data, options.plot)
    return 1 if any(map(wrong, data["results"])) else 0
