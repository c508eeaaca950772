"""Pictures of a Jacobian: where its entries stand, and a table for notebooks."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.util import find_spec
from io import BytesIO
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .forms import Form, parts
from .matrix_kind import kind, solved_as
from .nonzeros import coordinates, is_cheap, nnz, nnz_in_words

#: Up to this many rows, or columns, a cell of the picture is one of them.
CELLS = 500

#: A matrix longer than this many times its other side is drawn in a frame of that ratio, its cells stretched.
LONGEST = 4

#: How dark a cell with a single entry is at least, so that a thin diagonal of a large matrix is seen.
FAINTEST = 0.3


def spy(form: Form, ax: Any) -> Any:
    """Draw the pattern on matplotlib axes and return them."""
    figure_class()
    from matplotlib.ticker import AutoLocator

    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure().add_subplot()
    rows, columns = form.matrix_shape
    at, _ = coordinates(form)
    tall, wide = (max(1, -(-size // CELLS)) for size in (rows, columns))
    height, width = -(-rows // tall), -(-columns // wide)
    cell = (at // max(columns, 1) // tall) * width + at % max(columns, 1) // wide
    fill = torch.bincount(cell.cpu(), minlength=height * width).view(height, width).double()
    dark = torch.where(fill > 0, FAINTEST + (1 - FAINTEST) * (fill / (tall * wide)).sqrt(), 0)
    ax.imshow(
        dark.numpy(),
        cmap="Greys",
        aspect="auto",
        extent=(0, columns, rows, 0),
        vmin=0,
        interpolation="nearest",
    )
    ax.set_box_aspect(1 / frame_ratio(rows, columns))
    ax.set_xlabel(f"input {tuple(form.in_shape)}")
    ax.set_ylabel(f"output {tuple(form.out_shape)}")
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):  # none of the caller's own
            axis.get_major_locator().set_params(integer=True)
    count = nnz(form)
    ax.set_title(f"{count:,} nonzero{'s' * (count != 1)} from {form.stored:,} stored numbers")
    return ax


def frame_ratio(rows: int, columns: int) -> float:
    """Return width over height of the frame that a matrix is drawn in."""
    return min(max(max(columns, 1) / max(rows, 1), 1 / LONGEST), LONGEST)


def figure_class() -> Any:
    """Return matplotlib's Figure; raise with what to install where it is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "spy needs matplotlib, which is not installed; pip install 'torchjac[plot]'"
        ) from error
    return Figure


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


def cells(form: Form, most: int) -> Cells:
    """Return the pattern as at most ``most`` cells, with the smallest step that is a power of two."""
    _, columns = form.matrix_shape
    at, values = coordinates(form)
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


def html(form: Form) -> str:
    """Return a table of what `repr` tells, with the pattern beside it where it is cheap and matplotlib is there."""
    told = {
        "output": tuple(form.out_shape),
        "input": tuple(form.in_shape),
        **facts(form),
        "dtype": form.dtype,
        "device": form.device,
    }
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(fact))}</td></tr>"
        for name, fact in told.items()
    )
    table = f"<table><caption>Jacobian</caption>{cells}</table>"
    drawable = form.shape.numel() and is_cheap(form) and find_spec("matplotlib") is not None
    image = f"<img alt='pattern' src='data:image/png;base64,{_png(form)}'>" if drawable else ""
    return f"<div style='display:flex;gap:1em;align-items:center;flex-wrap:wrap'>{table}{image}</div>"


def facts(form: Form) -> dict[str, str]:
    """Return what there is to say of the structure, by name; `solved_as` only where it differs from the kind."""
    rows, columns = form.matrix_shape
    stored, remarks = form.stored, []
    if 0 < stored < rows * columns:
        fewer = rows * columns / stored
        remarks.append(
            f"{fewer:,.0f} × fewer than dense" if fewer >= 100 else f"{fewer:.2g} × fewer than dense"
        )
    if is_cheap(form) and stored < nnz(form):
        remarks.append("one stands for several nonzeros" if stored else "constants are not stored")
    found = kind(form).name
    how = solved_as(form).name if rows == columns else found
    name, count = parts(form)
    return {
        "nonzeros": nnz_in_words(form),
        "kind": found,
        **({} if how == found else {"solved as": how}),
        name: f"{count:,}",
        "stored": f"{stored:,} numbers" + (f" ({'; '.join(remarks)})" if remarks else ""),
    }


def _png(form: Form) -> str:
    ratio = frame_ratio(*form.matrix_shape)
    figure = figure_class()(
        figsize=[3 * min(max(side, 0.6), 2) for side in (ratio, 1 / ratio)], layout="constrained"
    )
    spy(form, figure.add_subplot()).set_title("")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=72)
    return b64encode(buffer.getvalue()).decode()
