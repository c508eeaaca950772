"""Time over size: the same problem from small to large, as long as each peer keeps up."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

#: Title of the curve, the workload, its growing argument and its sizes.
CURVES = [
    ("reaction-diffusion 1-D", "line", "n", [100, 1000, 10_000, 100_000, 1_000_000]),
    ("Rosenbrock Hessian", "rosenbrock", "n", [100, 1000, 10_000, 100_000, 1_000_000]),
    ("batched MLP 32-64-32", "whole", "batch", [1, 4, 16, 64, 256, 1024]),
]
#: What else a workload is made with.
MORE = {"whole": {"widths": (32, 64, 32)}}
#: The names of the peers that are followed.
FOLLOWED = ["torchjac", "torch.func.jacrev", "vmap(jacrev)", "jax.jit(jacrev)", "asdex", "CasADi", "hand"]
EXACT = {*FOLLOWED, "torch.func.hessian"}


def curves(options: argparse.Namespace, run: Callable[..., Any]) -> list[dict[str, Any]]:
    """For each curve the seconds of each "peer|answer" at each size; a peer that took too long is not asked again."""
    found = []
    for title, make, argument, sizes in CURVES:
        if options.only.lower() not in title.lower():
            continue
        if options.small:
            sizes = [1, 2]
        lines: dict[str, list[tuple[int, float]]] = {}
        slow: set[str] = set()
        for size in sizes:
            task = {
                "workloads": [(make, {argument: size, **MORE.get(make, {})})],
                "dtypes": ["float64"],
                "peers": options.peers or FOLLOWED,
                "without": sorted(slow),
                "compile": [],
                "seconds": min(0.15, options.seconds),
                "limit": 10,
                "threads": options.threads,
                "gigabytes": options.gigabytes,
                "clock": options.clock,
            }
            for row in run(task, options.patience):
                name = f"{row.get('peer')}|{row.get('answer')}"
                if row.get("seconds") and row["peer"] in EXACT:
                    lines.setdefault(name, []).append((size, row["seconds"]))
                if row.get("status") not in (None, "ok", "not for this") or row.get("first", 0) > 3:
                    slow.add(name)
        found.append({"title": title, "argument": argument, "lines": lines})
    return found
