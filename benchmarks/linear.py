"""Sparse answers grow as the number of unknowns does: time and memory of each, from a thousand to a million.

    python benchmarks/linear.py                         the table
    python benchmarks/linear.py --sizes 1000 10000      fewer sizes

Each row is measured in a fresh process with one thread. Times are the medians of five calls, in processor time:
of the Jacobian as an operator, and of that and its CSR tensor. "stored" is what the blocks hold; "peak" is the
most memory the process held beyond what it held before the first call at this size, the evaluation of the
function included, until the CSR tensor was there. The goal is a peak of at most six times the bytes of the CSR
tensor, which has a value and an int64 index for each entry. At a thousand unknowns a call costs what walking
the graph in Python does; from there on time over n may only fall or stay.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

import torchjac

GOAL = 6
STATUS = Path("/proc/self/status")


def brusselator(n: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The residual of an implicit step on a square grid with about n unknowns, at its start."""
    from examples.brusselator import brusselator, initial_state

    start = initial_state(max(2, round((n / 2) ** 0.5)))
    return lambda w: w - start - 1e-3 * brusselator(w), start


def rosenbrock(n: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The gradient of the extended Rosenbrock function, whose Jacobian is the Hessian."""
    from examples.million_unknowns import rosenbrock

    return torchjac.grad(rosenbrock), torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(n // 2)


def broyden(n: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The Broyden tridiagonal function at its start."""
    from examples.million_unknowns import broyden

    return broyden, -torch.ones(n, dtype=torch.float64)


PROBLEMS = {"Brusselator": brusselator, "Rosenbrock Hessian": rosenbrock, "Broyden tridiagonal": broyden}


def field(name: str) -> int:
    """A line of the process's status, in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def peak(call: Callable[[], Any]) -> int | None:
    """The most memory held during a call beyond what was held before, in bytes; None off Linux."""
    if not STATUS.exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = field("VmRSS")
    answer = call()
    most = field("VmHWM") - before
    del answer
    return most


def timed(call: Callable[[], Any]) -> float:
    """The median processor time of five calls, in seconds."""
    times = []
    for _ in range(5):
        begin = process_time()
        call()
        times.append(process_time() - begin)
    return median(times)


def measure(name: str, n: int) -> dict[str, Any]:
    """One row, in this process."""
    torch.set_num_threads(1)
    function, x = PROBLEMS[name](10)
    torchjac.jacobian(function)(x).to_sparse(torch.sparse_csr)  # what is imported and set up only once
    function, x = PROBLEMS[name](n)
    jacobian = torchjac.jacobian(function)

    def csr() -> Tensor:
        return jacobian(x).to_sparse(torch.sparse_csr)

    most = peak(csr)
    J, matrix = jacobian(x), csr()
    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return {
        "n": x.numel(),
        "nnz": J.nnz,
        "stored": J.stored * x.element_size(),
        "csr": sum(part.nbytes for part in parts),
        "peak": most,
        "operator_seconds": timed(lambda: jacobian(x)),
        "csr_seconds": timed(csr),
    }


def machine() -> str:
    """Where and with what the table was made."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, Python {platform.python_version()}, torch {torch.__version__}, float64, one thread"


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status tells whether every peak met the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--one", nargs=2, metavar=("NAME", "N"), help="measure one row here, print it as JSON"
    )
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return 0
    print(machine())
    print(
        f"{'':20}{'n':>10}{'nonzeros':>11}{'operator':>14}{'to CSR':>14}{'stored':>10}{'CSR':>10}{'peak':>10}"
        f"{'peak/CSR':>10}"
    )
    missed = 0
    for name in PROBLEMS:
        for n in options.sizes:
            command = [sys.executable, __file__, "--one", name, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout)
            size = row["n"]
            # Below some megabytes the allocator's own pages are most of what is seen.
            judged = row["peak"] is not None and row["csr"] > 4 << 20
            missed += judged and row["peak"] > GOAL * row["csr"]
            memory = f"{row['peak'] / size:,.0f} B/n" if judged else "-"
            times = f"{row['peak'] / row['csr']:.1f}" if judged else "-"
            print(
                f"{name:20}{size:>10,}{row['nnz']:>11,}{row['operator_seconds'] / size * 1e9:>9,.0f} ns/n"
                f"{row['csr_seconds'] / size * 1e9:>9,.0f} ns/n{row['stored'] / size:>6,.0f} B/n"
                f"{row['csr'] / size:>6,.0f} B/n{memory:>10}{times:>10}",
                flush=True,
            )
    print(f"peak at most {GOAL} times the CSR: {'missed' if missed else 'met'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
