"""The plot: time over size, log by log, and how torchjac stands beside the best of torch on each workload."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

from .goals import EAGER, best, seconds

mpl.use("Agg")

#: Colour, marker and label of each line; what is not listed is not drawn.
STYLE = {
    "torchjac|structured": ("#c1272d", "o", "torchjac, structured"),
    "torchjac|dense": ("#f08a5d", "s", "torchjac, dense"),
    "torch.func.jacrev|dense": ("#0000a7", "s", "torch.func.jacrev"),
    "vmap(jacrev)|structured": ("#5b8ff9", "^", "vmap(jacrev)"),
    "jax.jit(jacrev)|dense": ("#008176", "s", "jax.jit(jacrev)"),
    "asdex|structured": ("#8a508f", "v", "asdex, jit"),
    "CasADi|structured": ("#b3a100", "D", "CasADi"),
    "hand|structured": ("#444444", "x", "by hand in torch"),
}


def save(data: dict[str, Any], path: str) -> None:
    """Draw the curves above and the workloads below, and write a PNG."""
    from matplotlib import pyplot as plt

    rows = [row for result in data["results"] if (row := standing(result)) is not None]
    curves = data["curves"]
    figure = plt.figure(figsize=(12, 4.2 * bool(curves) + 1.2 + 0.24 * len(rows)), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=[4.2, 1.2 + 0.24 * len(rows)]) if curves else [None, figure]
    if curves:
        axes = parts[0].subplots(1, len(curves), squeeze=False)[0]
        for axis, curve in zip(axes, curves, strict=True):
            draw_curve(axis, curve)
        axes[0].set_ylabel("seconds")
        handles = {
            label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        parts[0].legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    draw_standing(parts[1].subplots(), rows)
    about = data["machine"]
    figure.suptitle(
        f"float64, {about['threads']} thread of {about['processor']}, torch {about['torch']}, medians of one run",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curve(axis: Any, curve: dict[str, Any]) -> None:
    """Seconds over size."""
    for name, (color, marker, label) in STYLE.items():
        points = curve["lines"].get(name)
        if points:
            axis.loglog(*zip(*points, strict=True), color=color, marker=marker, ms=4, lw=1.4, label=label)
    axis.set_title(curve["title"], fontsize=10)
    axis.set_xlabel(curve["argument"])
    axis.grid(alpha=0.3)


#: What stands on a workload's line: label, colour, marker, peer.
KINDS = [
    ("torchjac, dense answer", "#f08a5d", "s", "torchjac", "dense"),
    ("torchjac, structured answer", "#c1272d", "o", "torchjac", "structured"),
    ("torchjac.compile, dense", "#f5c6aa", "s", "torchjac.compile", "dense"),
    ("torchjac.compile, structured", "#7a0c12", "P", "torchjac.compile", "structured"),
    ("by hand, dense", "#999999", "+", "hand", "dense"),
    ("by hand, structured", "#444444", "x", "hand", "structured"),
]


def standing(result: dict[str, Any]) -> tuple[str, list[float | None]] | None:
    """How much faster each kind is than the best of torch for such an answer, in float64.

    Where torch has no structured answer, a structured one of ours stands beside its dense one.
    """
    peers = result["dtypes"].get("float64", {})
    dense = best(peers, EAGER, "dense")
    theirs = {"dense": dense, "structured": best(peers, EAGER, "structured") or dense}
    found = []
    for *_, peer, answer in KINDS:
        time, against = seconds(peers, peer, answer), theirs[answer]
        found.append(against[1] / time if time and against else None)
    return (result["name"], found) if any(found) else None


def draw_standing(axis: Any, rows: list[Any]) -> None:
    """A line for each workload, with a dot for each answer; right of 1 is faster than the best of torch."""
    from matplotlib.ticker import FuncFormatter

    for k, (label, color, marker, *_) in enumerate(KINDS):
        points = [(speeds[k], y) for y, (_, speeds) in enumerate(rows) if speeds[k] is not None]
        if points:
            axis.scatter(*zip(*points, strict=True), color=color, marker=marker, s=28, label=label, zorder=3)
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axis.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axis.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axis.grid(alpha=0.3)
    axis.set_xlabel("times faster than the best of torch.func.jacrev, jacfwd and vmap(jacrev)", fontsize=9)
    if rows:
        axis.legend(fontsize=8, loc="best")
