"""How near the best candidate the chosen one is, on all everyday calls: each candidate is forced and measured.

    python benchmarks/choices.py
    python benchmarks/choices.py --only 'lstm|gru' --dtype float32

A row is a call: the chosen candidate and the fastest, what each takes, and the ratio. `torchjac.explain` measures them.
"""

import argparse
import re
import sys
from math import exp, log
from pathlib import Path

import torch

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "src")]

import torchjac
from benchmarks.command import machine
from benchmarks.everyday_functions import CALLS

#: The chosen candidate may take so many times what the fastest takes
GOAL = 1.25


def main() -> None:
    """Print the table and its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="calls whose name this finds")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, args.dtype))
    print(", ".join(f"{key} {value}" for key, value in machine(1, "wall").items()))
    ratios = []
    for call in CALLS:
        if not args.only.search(call.name):
            continue
        torch.manual_seed(0)
        f, x = call.make()
        g = torchjac.jacrev(f) if call.order == 2 else f
        costs = torchjac.explain(g, measure=True)(x).costs
        measured = {cost.candidate: cost.measured for cost in costs.candidates if cost.measured is not None}
        if len(measured) < 2 or costs.chosen not in measured:
            continue
        best = min(measured, key=measured.get)  # type: ignore[arg-type]
        ratio = measured[costs.chosen] / measured[best]
        ratios.append(ratio)
        print(
            f"{call.name:38} {costs.chosen:8} {measured[costs.chosen]:9.0f} µs  {best:8} {measured[best]:9.0f} µs "
            f"{ratio:6.2f}",
            flush=True,
        )
    mean, above = exp(sum(map(log, ratios)) / len(ratios)), sum(ratio > GOAL for ratio in ratios)
    print(
        f"{len(ratios)} calls with several candidates: mean {mean:.2f}, worst {max(ratios):.2f}, {above} above {GOAL}"
    )


if __name__ == "__main__":
    main()
