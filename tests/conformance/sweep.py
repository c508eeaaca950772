"""Every op PyTorch describes in its own test database, against one `torch.autograd.grad` call per row.

The database (`op_db`) gives for each op a list of samples: shapes, dtypes, broadcasting, keyword
arguments, edge cases, all written by PyTorch's authors. Each sample is a function of its differentiable
tensors; torchjac must return what the row-by-row loop returns, in six modes (`tests.conformance.modes`), and name
no more entries than are there, or for a reason, in two more (`tests.conformance.structure`).

Of plain mode it also tells how the structured walk went: which kinds of rules it found, whether structure
was kept, and how often backward formulas were called; ``--report`` writes that as a table of the ops.

Run ``python tests/conformance/sweep.py --help`` for the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

# A script finds only what lies in its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conformance.modes import MODES, STRUCTURES
from tests.conformance.processes import run_all
from tests.conformance.tables import LOST, losses, report, table
from tests.conformance.walks import WALKS


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Compare torchjac with the row-by-row loop on PyTorch's op database."
    )
    parser.add_argument("--ops", default="", metavar="REGEX", help="only ops whose name matches")
    parser.add_argument("--sample", type=int, help="only this sample of each op")
    parser.add_argument("--mode", default="plain", choices=(*MODES, "all", *STRUCTURES, "structures"))
    parser.add_argument(
        "--walk",
        default="structure",
        metavar="WALKS",
        help=f"which ways torchjac is to take: {', '.join(WALKS)}",
    )
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--jobs", type=int, default=2, help="worker processes, one thread each")
    parser.add_argument("--fraction", metavar="K/N", help="only the K-th of N parts of the samples, K from 0")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds an op may take in all")
    parser.add_argument("--complex-outputs", action="store_true", help="view complex outputs as real ones")
    parser.add_argument("--all-rows", action="store_true", help="print the ops without failures too")
    parser.add_argument("--json", metavar="PATH", help="write every outcome there")
    parser.add_argument("--report", metavar="PATH", help="write the table of rules and calls there")
    options = parser.parse_args(arguments)
    options.dtype = getattr(torch, options.dtype)
    options.modes = {"all": MODES, "structures": STRUCTURES}.get(options.mode, (options.mode,))
    options.walks = tuple(options.walk.split(","))
    if not set(options.walks) <= set(WALKS):
        parser.error(f"--walk {options.walk}: must be some of {', '.join(WALKS)}, with commas")
    if options.fraction:
        part, parts = map(int, options.fraction.split("/"))
        if not 0 <= part < parts:
            parser.error(f"--fraction {options.fraction}: K must be in [0, N)")
        options.fraction = (part, parts)
    return options


def main() -> int:
    """Run the sweep; the exit code says whether anything was wrong."""
    options = parse()
    results = run_all(options)
    print(table(results, options.all_rows))
    if any(result.status in LOST for result in results):
        print(losses(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([asdict(result) for result in results], file, indent=1)
    if options.report:
        with open(options.report, "w") as file:
            file.write(report(results) + "\n")
    return int(any(result.status in ("wrong", "error", "unexplained") for result in results))


if __name__ == "__main__":
    sys.exit(main())
