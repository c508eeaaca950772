"""Draws the pictures of the documentation into docs/pictures/, each from a Jacobian taken here or in an example.

python docs/pictures.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import matplotlib as mpl
import torch
from benchmarks.plot import draw_curve
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchjac import Jacobian, jacobian
from torchjac._answers.forms import SumOfBlocks
from torchjac.extend import Block

OUT = Path(__file__).parent / "pictures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
#: The ratio in a line of a table of results, which follows two times in microseconds.
RATIO = re.compile(r" \d+ +[\w.()]+(?:, chunk \d+)? +\d+ +(\d+\.\d\d)")
#: Blocks of one Jacobian are told apart by their colours; one that stores no number is pale.
COLOURS = ("#3949ab", "#e07a1f", "#2e8b57", "#b0306a", "#6a5acd")
PALE = 0.45


def _of(J: Jacobian, blocks: tuple[Block, ...]) -> Jacobian:
    """A Jacobian of these blocks alone."""
    return Jacobian(SumOfBlocks(J.out_shape, J.in_shape, J.dtype, J.device, blocks))


def draw(ax: Axes, J: Jacobian, title: str = "") -> Axes:
    """Draw the entries of each block as coloured cells, with lines between rows and columns where these are few."""
    rows, columns = prod(J.out_shape), prod(J.in_shape)
    for number, block in enumerate(J.blocks):
        alpha = 1.0 if isinstance(block.value, Tensor) else PALE
        for row, column in _of(J, (block,)).pattern().indices().T.tolist():
            colour = COLOURS[number % len(COLOURS)]
            ax.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=colour, alpha=alpha))
    if max(rows, columns) <= 24:
        ax.hlines(range(1, rows), 0, columns, color="#dddddd", linewidth=0.5, zorder=0)
        ax.vlines(range(1, columns), 0, rows, color="#dddddd", linewidth=0.5, zorder=0)
    ax.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    return ax


def one(J: Jacobian, title: str = "") -> Figure:
    """A picture of one Jacobian."""
    figure = Figure(figsize=(3.6, 3.8), layout="constrained")
    draw(figure.add_subplot(), J, title)
    return figure


def springs() -> Figure:
    """The force between neighbours of a chain: the README's function."""
    return one(jacobian(lambda x: torch.sin(x[1:] - x[:-1]))(torch.linspace(0, 1, 16)), "15 × 16, two blocks")


def held() -> Figure:
    """A chain held at both ends."""

    def force(x: Tensor) -> Tensor:
        x = torch.cat([torch.zeros(1), x, torch.zeros(1)])
        return torch.sin(x[1:-1] - x[:-2]) - torch.sin(x[2:] - x[1:-1])

    return one(jacobian(force)(torch.zeros(20)), "20 × 20")


def stencil() -> Figure:
    """The five-point Laplacian of a 6 × 6 grid, with a cubic term."""

    def residual(u: Tensor) -> Tensor:
        p = torch.nn.functional.pad(u, (1, 1, 1, 1))
        return 4 * u - p[2:, 1:-1] - p[:-2, 1:-1] - p[1:-1, 2:] - p[1:-1, :-2] + u**3

    return one(jacobian(residual)(torch.zeros(6, 6)), "6 × 6 grid")


def arrow() -> Figure:
    """JᵀJ of a fit where each residual joins one of 3 cameras with one of 16 points, two unknowns for each."""
    camera, point = torch.arange(32) % 3, torch.arange(32) % 16

    def residual(x: Tensor) -> Tensor:
        x = x.view(19, 2)
        return torch.sin(x[:3][camera] * x[3:][point])

    J = jacobian(residual)(torch.linspace(0, 1, 38))
    return one(_of(J.gram(), J.gram().blocks), "cameras first, then points")


def local_jacobians() -> Figure:
    """The local Jacobians of six ops."""
    x, rows = torch.linspace(0, 1, 6), torch.linspace(0, 1, 6).view(2, 3)
    W = torch.ones(3, 4)
    panels: list[tuple[str, Callable[[Tensor], Tensor], Tensor]] = [
        ("sin(x)", torch.sin, x),
        ("x[1:]", lambda x: x[1:], x),
        ("x[index]", lambda x: x[torch.tensor([4, 0, 3, 4])], x),
        ("x.sum()", lambda x: x.sum()[None], x),
        ("x @ W, a batch of 2", lambda x: x @ W, rows),
        ("softmax(x, -1), a batch of 2", lambda x: x.softmax(-1), rows),
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    for number, (title, f, at) in enumerate(panels):
        J = jacobian(f)(at)
        draw(figure.add_subplot(2, 3, number + 1), J, title).set_xlabel(
            f"{J.stored} stored of {J.shape.numel()}", fontsize=9
        )
    return figure


def chain(figure: Figure, panels: list[tuple[Jacobian, str, str]], between: list[str]) -> Figure:
    """Jacobians side by side, with a sign between each two."""
    axes = figure.subplots(1, len(panels), width_ratios=[prod(J.in_shape) for J, _, _ in panels])
    for ax, (J, title, below) in zip(axes, panels, strict=True):
        draw(ax, J, title).set_xlabel(below, fontsize=9)
    for ax, sign in zip(axes, between, strict=False):
        ax.annotate(sign, (1.11, 0.5), xycoords="axes fraction", fontsize=15, ha="center", va="center")
    figure.get_layout_engine().set(wspace=0.12)
    return figure


def compose() -> Figure:
    """A diagonal times a shifted identity."""
    x = torch.linspace(0, 1, 7)
    outer, inner = jacobian(torch.sin)(x[1:]), jacobian(lambda x: x[1:])(x)
    return chain(
        Figure(figsize=(8, 2.9), layout="constrained"),
        [
            (outer, "sin", str(outer.blocks[0])),
            (inner, "x[1:]", str(inner.blocks[0])),
            (outer @ inner, "sin(x[1:])", str((outer @ inner).blocks[0])),
        ],
        ["·", "="],
    )


def walk() -> Figure:
    """The Jacobian of sin(x[1:] − x[:−1]) by each tensor on the way back."""
    x = torch.linspace(0, 1, 7)
    y = torch.sin(x[1:] - x[:-1])
    identity = jacobian(lambda y: y)(y)
    by_difference = jacobian(torch.sin)(x[1:] - x[:-1])
    by_x = jacobian(lambda x: torch.sin(x[1:] - x[:-1]))(x)
    return chain(
        Figure(figsize=(8, 3), layout="constrained"),
        [
            (identity, "by the output", "nothing stored"),
            (by_difference, "by the difference", f"one block, {by_difference.stored} stored"),
            (by_x, "by x", f"two blocks, {by_x.stored} stored"),
        ],
        ["→", "→"],
    )


def ratios() -> Figure:
    """Our time over that of the best of torch.func, of each call in the results, the fastest first."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for name, label, colour in (
        ("everyday", "everyday calls", COLOURS[0]),
        ("everyday_vmap", "inside vmap", COLOURS[1]),
    ):
        table = (RESULTS / f"{name}.txt").read_text().split("once more at")[0]
        found = sorted(float(ratio) for ratio in RATIO.findall(table))
        share = [100 * (number + 1) / len(found) for number in range(len(found))]
        axes.semilogy(share, found, color=colour, label=f"{len(found)} {label}")
    axes.axhline(1, color="#888888", linewidth=0.8)
    axes.set(xlabel="share of the calls, %", ylabel="time over the best of torch.func", ylim=(0.05, 2))
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"], minor=False)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def sizes() -> Figure:
    """Time over size beside torch.func, JAX, asdex and CasADi: the upper half of the benchmark's picture."""
    curves = json.loads((RESULTS / "benchmark.json").read_text())["curves"]
    figure = Figure(figsize=(4 * len(curves), 4.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        draw_curve(axes, curve)
    figure.axes[0].set_ylabel("seconds")
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "arrow": arrow,
    "compose": compose,
    "held": held,
    "locals": local_jacobians,
    "ratios": ratios,
    "sizes": sizes,
    "springs": springs,
    "stencil": stencil,
    "walk": walk,
}


#: Examples of a few seconds, each of which saves its own picture.
EXAMPLES = (
    "laplace_approximation", "optimal_control", "pendulum_ekf", "pinn_laplacian", "power_flow", "robot_arm", "truss",
    "turing_patterns",
)  # fmt: skip


def main() -> None:
    """Draw all, and let the examples draw theirs."""
    mpl.rcParams.update({"svg.hashsalt": "torchjac", "svg.fonttype": "path", "font.family": "DejaVu Sans"})
    OUT.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        picture().savefig(OUT / f"{name}.svg", metadata={"Date": None})
    mpl.rcdefaults()
    sys.path.insert(0, str(OUT.parents[1] / "examples"))
    for name in EXAMPLES:
        with redirect_stdout(StringIO()):
            import_module(name).main(["--out", str(OUT / f"{name}.png")])


if __name__ == "__main__":
    main()
