"""Pictures of a Jacobian: where its entries stand, and a table for notebooks."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.util import find_spec
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .operator import Jacobian

#: Up to this many rows and columns a cell of the picture is one entry.
CELLS = 500


def spy(jacobian: Jacobian, ax: Any) -> Any:
    """Draw the pattern on matplotlib axes and return them."""
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure().add_subplot()
    rows, columns = prod(jacobian.out_shape), prod(jacobian.in_shape)
    at, _ = jacobian._coordinates()
    step = max(1, -(-max(rows, columns) // CELLS))
    height, width = -(-rows // step), -(-columns // step)
    cell = (at // max(columns, 1) // step) * width + at % max(columns, 1) // step
    fill = torch.bincount(cell.cpu(), minlength=height * width).view(height, width).double()
    ax.imshow(
        (fill / step**2).sqrt().numpy(), cmap="Greys", aspect="equal", extent=(0, columns, rows, 0), vmin=0
    )
    ax.set_xlabel(f"input {tuple(jacobian.in_shape)}")
    ax.set_ylabel(f"output {tuple(jacobian.out_shape)}")
    ax.set_title(f"{jacobian.nnz:,} nonzeros, {jacobian.stored:,} numbers stored")
    return ax


class Cells(NamedTuple):
    """Where entries stand, on a grid whose cells hold ``step`` × ``step`` entries.

    ``rows`` and ``columns`` name the cells that are not empty, ``counts`` how many entries they hold, and
    ``values``, where each cell is one entry, what these are.
    """

    step: int
    rows: Tensor
    columns: Tensor
    counts: Tensor
    values: Tensor | None


def cells(jacobian: Jacobian, most: int) -> Cells:
    """Return the pattern as at most so many cells, with the smallest step that is a power of two."""
    columns = prod(jacobian.in_shape)
    at, values = jacobian._coordinates()
    at, values = at.cpu(), values.detach().cpu()
    row, column = at // max(columns, 1), at % max(columns, 1)
    if at.numel() <= most:
        return Cells(1, row, column, torch.ones_like(at), values)
    step = 1
    while True:
        step *= 2
        width = -(-columns // step)
        cell, counts = torch.unique(row // step * width + column // step, return_counts=True)
        if cell.numel() <= most:
            return Cells(step, cell // width, cell % width, counts, None)


def html(jacobian: Jacobian) -> str:
    """Return a table of what `repr` tells, with the pattern beside it where it is cheap and matplotlib is there."""
    facts = {
        "output": tuple(jacobian.out_shape),
        "input": tuple(jacobian.in_shape),
        "nonzeros": jacobian._nnz_in_words(),
        "kind": jacobian.kind,
        "factors" if jacobian.factors else "blocks": len(jacobian.factors or jacobian.blocks),
        "numbers stored": f"{jacobian.stored:,}",
        "dtype": jacobian.dtype,
        "device": jacobian.device,
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(fact))}</td></tr>"
        for name, fact in facts.items()
    )
    table = f"<table><caption>Jacobian</caption>{cells}</table>"
    drawable = jacobian.shape.numel() and jacobian._is_cheap() and find_spec("matplotlib") is not None
    image = f"<img alt='pattern' src='data:image/png;base64,{_png(jacobian)}'>" if drawable else ""
    return f"<div style='display:flex;gap:1em;align-items:center'>{table}{image}</div>"


def _png(jacobian: Jacobian) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 3), layout="constrained")
    spy(jacobian, figure.add_subplot()).set_title("")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=72)
    return b64encode(buffer.getvalue()).decode()
