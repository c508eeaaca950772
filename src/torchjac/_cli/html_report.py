"""The report as one self-contained HTML page: what was found, where entries stand, the walk and the costs."""

from __future__ import annotations

import json
import platform
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from .._accumulate.report import ALIGNED_LEFT, HEADS, table
from .._answers.operator import Jacobian
from .._answers.picture import cells
from .._blocks.block import entries
from . import number_format
from .measure import Measurement
from .request import FunctionCall
from .structure import Named, facts

#: The most cells that a page draws of each Jacobian, at thirteen bytes each; it leaves a Jacobian out that
#: names more entries than it should take to find them.
MOST_CELLS = 100_000
MOST_ENTRIES = 50_000_000

#: A walk longer than this is cut in the page.
MOST_LINES = 2000


def page(problem: FunctionCall, found: Sequence[Named], costs: Sequence[Measurement], command: str) -> str:
    """Return the page as text."""
    environment = Environment(
        loader=PackageLoader("torchjac", "_cli"), autoescape=True, undefined=StrictUndefined
    )
    report = found[0].jacobian.report
    lines = table(report.steps)
    slowest = max((cost.seconds for cost in costs if cost.seconds), default=1.0)
    return environment.get_template("page.html").render(
        title=problem.target,
        call=problem.in_words(),
        command=command,
        leaves=[(named.name, facts(named.jacobian), _picture(named)) for named in found],
        heads=HEADS[:-1],
        left=ALIGNED_LEFT,
        lines=lines[:MOST_LINES],
        left_out=max(0, len(lines) - MOST_LINES),
        summary=report.summary,
        lost=report.lost,
        costs=[
            {
                "way": cost.way,
                "time": number_format.seconds(cost.seconds) if cost.seconds is not None else "",
                "peak": number_format.size(cost.peak) if cost.peak is not None else "",
                "share": 100 * cost.seconds / slowest if cost.seconds else 0,
                "failed": cost.failed,
            }
            for cost in costs
        ],
        versions=(
            f"PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
            f"{torch.get_num_threads()} threads"
        ),
    )


def _picture(named: Named) -> str | None:
    """Return what the page's script draws, as JSON; None where there is nothing, or too much, to draw."""
    found: Jacobian = named.jacobian
    rows, columns = found.form.matrix_shape
    if rows == 0 or columns == 0 or found.device.type == "meta":
        return None
    if (rows * columns if found.factors else sum(map(entries, found.blocks))) > MOST_ENTRIES:
        return None
    drawn = cells(found.form, MOST_CELLS)
    picture: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "out": list(found.out_shape),
        "in": list(found.in_shape),
        "step": drawn.step,
        "row": _packed(drawn.rows, torch.int32),
        "column": _packed(drawn.columns, torch.int32),
        "count": _packed(drawn.counts, torch.int32),
        "value": "" if drawn.values is None else _packed(drawn.values, torch.float32),
    }
    return json.dumps(picture)


def _packed(numbers: Tensor, dtype: torch.dtype) -> str:
    """Return numbers as little-endian bytes in base64."""
    array = numbers.to(dtype).numpy()
    return b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
