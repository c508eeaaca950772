"""torchjac beside what a user would pick instead, on every workload: one table, a plot and a JSON.

    python benchmarks/run.py                                  everything (about a quarter of an hour)
    python benchmarks/run.py --only MLP --seconds 0.1         some of it, quickly
    python benchmarks/run.py --json FILE --plot FILE.png      and keep what it says

Each family of workloads has a process of its own, in which all peers take turns; memory is measured in a fresh
process for each peer. The answer of each peer is compared with torchjac's before anything is timed. Peers are optional:
`pip install -e .[bench]` brings jax, asdex, sparsejac and CasADi, and what is not installed is said to be missing.

One thread is the default because more of them make a comparison a matter of luck: where the scheduler puts two
spinning OpenMP threads on one core, every parallel op waits for a clock tick.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(import_module("benchmarks.command").main())
