"""What the first calls of an everyday function take, one after another, beside a call of the best of torch.func.

    python benchmarks/early_calls.py
    python benchmarks/early_calls.py --only 'lstm|gru' --dtype float32

A row is a function: its calls from the first one on, each over a warm call of the fastest way of torch.func, whose
first call takes no longer than later ones. The third call records a program, the eleventh writes it as a function.
Programs are forgotten and the calls repeated; medians of that. What a process makes once was made before, and is told
apart: the import, and the first call in a process of its own.
"""

import argparse
import os
import re
import subprocess
import sys
from math import exp, log
from pathlib import Path
from statistics import median

import torch

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "src")]

import torchjac
from benchmarks.command import machine
from benchmarks.everyday_functions import CALLS, Call
from benchmarks.everyday_functions.compare import ways
from benchmarks.problem import leaves
from benchmarks.timing import CLOCKS, turn

#: Calls that are timed one by one, and those of them that are printed
EARLY, SHOWN = 14, (1, 2, 3, 4, 6, 10, 11, 12, 14)
#: Sums are told over these calls from the first one on
SUMS = (1, 2, 6, 10, 14, 30, 100)
#: Calls before and while a warm one is timed
BEFORE, WARM = 120, 15


def early(call: Call, clock: str, repeats: int) -> tuple[float, list[float], float]:
    """The seconds of the best of torch.func, of our calls one after another, and of a warm one."""
    torch.manual_seed(0)
    f, x = call.make()
    columns = sum(leaf.numel() for leaf in leaves(x))
    found = ways(call, f, x, columns if call.order == 2 else f(x).numel(), columns)
    ours, theirs = found.pop("ours"), []
    for way in found.values():
        try:
            way()
        except (RuntimeError, NotImplementedError):
            continue
        theirs.append(median(turn(way, clock=clock) for _ in range(5)))
    ours()
    rounds = []
    for _ in range(repeats):
        torchjac.program_cache(clear=True)
        rounds.append([turn(ours, clock=clock) for _ in range(EARLY)])
    for _ in range(BEFORE):
        ours()
    warm = median(turn(ours, clock=clock) for _ in range(WARM))
    return min(theirs), [median(column) for column in zip(*rounds, strict=True)], warm


#: Prints the seconds of an import beside PyTorch's own, and of the first call in a process
FRESH = """
import torch, time
begin = time.perf_counter()
from {module} import jacrev
imported = time.perf_counter()
jacrev(torch.sin)(torch.rand(3))
print(imported - begin, time.perf_counter() - imported)
"""


def fresh(module: str) -> tuple[float, float]:
    """The median seconds of an import and of the first call, in processes of their own."""
    script = FRESH.format(module=module)
    path = {**os.environ, "PYTHONPATH": str(Path(torchjac.__file__).parents[1])}
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=path)
        for _ in range(3)
    ]
    times = [list(map(float, run.stdout.split())) for run in runs]
    return median(time for time, _ in times), median(time for _, time in times)


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return exp(sum(map(log, values)) / len(values))


def main() -> None:
    """Print the table and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="calls whose name this finds")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--every", type=int, default=1, help="take each of so many calls only")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, args.dtype))
    print(", ".join(f"{key} {value}" for key, value in machine(1, args.clock).items()))
    print(f"{'':38} {'theirs, µs':>10}" + "".join(f"{number:7}" for number in SHOWN) + "   warm")
    rows: list[tuple[list[float], float]] = []
    for call in [call for call in CALLS if args.only.search(call.name)][:: args.every]:
        theirs, calls, last = early(call, args.clock, args.repeats)
        ratios, warm = [each / theirs for each in calls], last / theirs
        rows.append((ratios, warm))
        shown = "".join(f"{ratios[number - 1]:7.2f}" for number in SHOWN)
        print(f"{call.name:38} {theirs * 1e6:10.0f}{shown}{warm:7.2f}", flush=True)
    means = "".join(f"{mean([ratios[number - 1] for ratios, _ in rows]):7.2f}" for number in SHOWN)
    print(f"{'geometric mean':49}{means}{mean([warm for _, warm in rows]):7.2f}")
    for calls in SUMS:
        taken = [(sum(ratios[:calls]) + max(0, calls - EARLY) * warm) / calls for ratios, warm in rows]
        above = sum(each > 1 for each in taken)
        print(
            f"the first {calls}: mean {mean(taken):.2f} of torch.func's, worst {max(taken):.2f}, {above} of "
            f"{len(rows)} above 1"
        )
    for module in ("torchjac", "torch.func"):
        imported, first = fresh(module)
        print(f"{module} in a new process: {imported:.2f} s to import, {first * 1e3:.0f} ms for jacrev(sin)")


if __name__ == "__main__":
    main()
