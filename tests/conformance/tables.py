"""What a sweep tells: counts and failures by op and mode, and the kinds of rules that each op used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.conformance.processes import Result

COLUMNS = ("ok", "wrong", "error", "loop nan", "loop fails", "skip", "loses", "unexplained")

#: What samples are that name entries which are zero
LOST = ("loses", "unexplained")


def table(results: Sequence[Result], everything: bool) -> str:
    """Counts by op and mode (only ops with a failure unless ``everything``), the failures, the totals."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.op, result.mode].append(result)
    titles = " ".join(f"{column:>11s}" for column in COLUMNS)
    head = f"{'op':50s} {'mode, walk':22s} samples {titles}    seconds"
    lines = [head]

    def line(name: str, mode: str, rows: Sequence[Result]) -> str:
        counts = Counter(row.status for row in rows)
        cells = " ".join(f"{counts[column] or '.':>11}" for column in COLUMNS)
        return f"{name:50.50s} {mode:22s} {len(rows):7d} {cells} {sum(row.seconds for row in rows):10.2f}"

    for (name, mode), rows in sorted(groups.items()):
        if everything or any(row.status in ("wrong", "error", "loop nan") for row in rows):
            lines.append(line(name, mode, rows))
    failures = [row for row in results if row.status in ("wrong", "error", "loop nan")]
    if failures:
        lines.append("")
    for row in sorted(failures, key=lambda row: (row.op, row.sample, row.mode)):
        gap = f"max diff {row.diff:.3g}  " if row.status == "wrong" else ""
        lines.append(f"{row.status:8s} {row.op} #{row.sample} {row.mode}: {gap}{row.note}")
    lines += ["", head]
    for mode in dict.fromkeys(row.mode for row in results):
        lines.append(line("total", mode, [row for row in results if row.mode == mode]))
    return "\n".join(lines)


def losses(results: Sequence[Result]) -> str:
    """The ops of which some samples lose structure: in how many, and what the one says that loses most."""
    ops: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.status in LOST:
            ops[result.mode, result.op].append(result)
    lines = ["", f"{'entries named that are zero':50s} {'mode, walk':22s} samples    most"]
    for (mode, op), rows in sorted(ops.items()):
        worst = max(rows, key=lambda row: (row.status == "unexplained", row.diff))
        lines.append(
            f"{op:50.50s} {mode:22s} {len(rows):7d} {worst.diff:6.1f}x  #{worst.sample} {worst.note}"
        )
    return "\n".join(lines)


KINDS = ("explicit", "independent", "opaque")


def report(results: Sequence[Result]) -> str:
    """A table in Markdown: for each op the kinds of rules used, what lost structure, and the calls needed."""
    ops: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if result.walk is not None:
            ops[result.op].append(result.walk)
    titles = ["op", "samples", *KINDS, "structure lost in", "at", "node calls", "rows of the loop"]
    lines = [
        "# Rules, structure and calls by op\n",
        "Written by `sweep.py --report`; what the columns say stands in [README.md](README.md).\n",
        f"| {' | '.join(titles)} |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for op, walks in sorted(ops.items()):
        nodes = [sum(walk["kinds"].get(kind, 0) for walk in walks) for kind in KINDS]
        lost = sum(bool(walk["lost"]) for walk in walks)
        names = sorted({name for walk in walks for name in walk["lost"]})
        calls, rows = (sum(walk[key] for walk in walks) for key in ("calls", "rows"))
        cells = [op, len(walks), *nodes, lost, ", ".join(names), calls, rows]
        lines.append("| " + " | ".join(str(cell) if cell != 0 else "·" for cell in cells) + " |")
    return "\n".join(lines)
