"""explain: how the Jacobian of a function is found, node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._accumulate.factors import accumulate_factors
from .._accumulate.order import named, pick, weighed
from .._accumulate.report import Costs, Report
from .._accumulate.work_counter import Counter
from .._capture.state import undisturbed
from .call_function import Recorded, check_function, found, record
from .dynamo import seen_by_tracers
from .module_spans import ModuleSpans


def explain(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Callable[..., Report]:
    """Report how the structured walk finds the Jacobian of ``func``, by a function of the same arguments.

    Each `Step` of the report names a node of autograd's graph in walking order, the shape of its output, how its
    local Jacobian was found, the blocks and numbers carried, the calls of its backward formula, and where and why
    structure was lost. Ops of a module stand below its name; in a report of more than twenty, those in a row that
    only move entries are one line. Where more than one order of multiplication was weighed, the estimates stand
    below, with what was counted. The last line sums up. The Jacobian itself is thrown away; `Jacobian.report` has
    the steps of one you keep.

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
        >>> narrow, wide = torch.ones(8, 4), torch.ones(20_000, 8)
        >>> print(explain(lambda x: wide @ torch.tanh(narrow @ x))(torch.zeros(4)).costs)
        order    estimated  counted
        reverse    464,457
        forward    123,040  123,024
    """
    check_function(func, argnums, None, "explain")

    def report_of(*args: Any, **kwargs: Any) -> Report:
        with undisturbed():
            with ModuleSpans(func) as modules:
                recorded = record("explain", func, argnums, has_aux, args, kwargs)
            report = Report(_details=modules.details)

            def walk(part: Recorded) -> list[list[Any]]:
                tape, shapes = part.captured.tape, part.shapes
                accumulate_factors(tape, shapes, report=report)
                order = pick(tape, shapes, factors=True)
                estimated = weighed(tape, shapes, order)
                if estimated:
                    # Once more: under a mode that sees every op, rules are careful as inside a trace.
                    with Counter() as counter:
                        accumulate_factors(tape, shapes)
                    report.costs = Costs(named(order), estimated, counter.work)
                return []

            found(recorded, walk)
        return report

    return seen_by_tracers("explain", func, report_of)
