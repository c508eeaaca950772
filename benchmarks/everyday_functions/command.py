"""The command of the everyday calls: the table, and what its ratios say together."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from math import exp, log
from pathlib import Path

import torch

import torchjac

from ..command import machine
from ..timing import CLOCKS
from . import CALLS
from .compare import INPUTS, NODES, SMALL, TOLERANCES, Row, measure

HEAD = f"{'':38} {'nodes':>6} {'shape':>11} {'ours, µs':>10} {'best of torch.func':>32} {'ratio':>6} {'first, ms':>10}"


def mean(rows: list[Row]) -> float:
    """The geometric mean of the ratios."""
    return exp(sum(log(row.ratio) for row in rows) / len(rows))


def summary(title: str, rows: list[Row], limit: float) -> str:
    """A line of figures."""
    if not rows:
        return f"{title}: none"
    worst = max(rows, key=lambda row: row.ratio)
    above = sum(row.ratio > limit for row in rows)
    return (
        f"{title}: {len(rows)} calls, geometric mean {mean(rows):.2f}, worst {worst.ratio:.2f} ({worst.name}, "
        f"{worst.dtype}), {above} above {limit}"
    )


def figures(rows: list[Row]) -> list[str]:
    """What all rows say together."""
    fields = list(dict.fromkeys(row.field for row in rows))
    return [
        *(
            summary(field.replace("_", " "), [row for row in rows if row.field == field], 1.0)
            for field in fields
        ),
        summary("Hessians", [row for row in rows if row.order == 2], 1.0),
        summary(f"at most {NODES} nodes and {INPUTS} inputs", [row for row in rows if row.small], SMALL),
        summary(f"at most {NODES} nodes", [row for row in rows if row.nodes <= NODES], 1.0),
        summary("all", rows, 1.0),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print the table and its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=re.compile, default="", help="calls whose name this expression finds")
    parser.add_argument("--dtype", nargs="*", choices=list(TOLERANCES), default=["float64"])
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each way")
    parser.add_argument("--limit", type=float, default=30, help="seconds that a first call may take")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--text", type=Path, help="where the table goes")
    parser.add_argument("--note", default="", help="a remark for the header")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    where = machine(1, args.clock)
    tell(
        ", ".join(
            f"{key} {where[key]}" for key in ("processor", "cores", "threads", "clock", "torch", "python")
        )
    )
    if args.note:
        tell(args.note)
    torchjac.jacrev(torch.sin)(torch.rand(2))  # what the library makes once is not the first call's
    rows: list[Row] = []
    before = torch.get_default_dtype()
    for dtype in args.dtype:
        torch.set_default_dtype(getattr(torch, dtype))
        tell(f"\n{dtype:8}{HEAD[8:]}")
        for call in CALLS:
            if re.search(args.only, call.name):
                rows.append(measure(call, dtype, args.seconds, args.clock, args.limit))
                tell(rows[-1].line())
    torch.set_default_dtype(before)
    tell("")
    for line in figures(rows):
        tell(line)
    if args.text:
        args.text.write_text("\n".join(lines) + "\n")
    if args.json:
        found = [asdict(row) | {"ratio": row.ratio} for row in rows]
        args.json.write_text(json.dumps({"machine": where, "rows": found}, indent=1))
