"""explain: how the Jacobian of a function is found, node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._accumulate.factors import accumulate_factors
from .._accumulate.report import Report
from .._capture.state import undisturbed
from .call_function import Recorded, check_function, found, record
from .candidate_costs import candidate_costs
from .dynamo import seen_by_tracers
from .module_spans import ModuleSpans


def explain(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    measure: bool = False,
) -> Callable[..., Report]:
    """Report how the Jacobian of ``func`` is found, by a function of the same arguments.

    First stands the structured walk, that of `jacobian`: each `Step` of the report names a node of autograd's graph in
    walking order, the shape of its output, how its local Jacobian was found, the blocks and numbers carried, the calls
    of its backward formula, and where and why structure was lost. Ops of a module stand below its name; in a report of
    more than twenty, those in a row that only move entries are one line.

    The line below sums it up. The last one tells how `jacrev` finds the dense Jacobian; `Report.costs` has each
    candidate for that with what it is estimated to take from shapes and, unless that is long, what the steps of its
    program take; a star marks the one that is kept, whose program is printed if it is short. With ``measure`` each is
    also run, the median told, and all of it printed. The Jacobian itself is thrown away; `Jacobian.report` has the
    steps of one you keep.

    Example:
        >>> import torch
        >>> from torchjac import explain
        >>> print(explain(lambda x: (x[1:] * x[:-1]).exp())(torch.zeros(5)))
        node            shape  kind      blocks  stored  calls  structure lost
        ExpBackward0    (4,)   explicit       1       0      1
        MulBackward0    (4,)   explicit       1       4      0
        SliceBackward0  (4,)   explicit       1       4      0
        SliceBackward0  (4,)   explicit       1       4      0
        <BLANKLINE>
        4 nodes (4 explicit), 1 call, at most 4 numbers carried; structure lost nowhere
        dense: by reverse, a program of 12 steps (not by rows)
        >>> print(explain(torch.sin, measure=True)(torch.zeros(5)).costs)
        dense by  estimated  program  steps  measured
        reverse      ... µs   ... µs     ...   ... µs
        rows *       ... µs   ... µs     ...   ... µs
        <BLANKLINE>
        v2 = SinBackward0(tensor(5, 5))
        v3 = contiguous(v2)
        return [[v3, ], ]
    """
    check_function(func, argnums, None, "explain")

    def report_of(*args: Any, **kwargs: Any) -> Report:
        with undisturbed():
            with ModuleSpans(func) as modules:
                recorded = record("explain", func, argnums, has_aux, args, kwargs)
            report = Report(_details=modules.details)

            def walk(part: Recorded) -> list[list[Any]]:
                accumulate_factors(part.captured.tape, part.shapes, report=report)
                report.costs = candidate_costs(part, measure)
                return []

            found(recorded, walk)
        return report

    return seen_by_tracers("explain", func, report_of)
