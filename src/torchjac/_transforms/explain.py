"""explain: how the Jacobian of a function is found, node by node."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from .._accumulate.factors import accumulate_factors
from .._accumulate.report import Report
from .run import check_function, record, walking


def explain(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Callable[..., Report]:
    """How the structured walk finds the Jacobian of ``func``: a function of the same arguments gives a report.

    Each `Step` of the report names a node of autograd's graph in walking order, how its local Jacobian was
    found, the blocks and numbers carried, the calls of its backward formula, and where and why structure
    was lost. The Jacobian itself is thrown away; `Jacobian.report` has the same of one you keep.

    Example:
        >>> import torch
        >>> from torchjac import explain
        >>> print(explain(lambda x: (x[1:] * x[:-1]).exp())(torch.zeros(5)))
        node            kind      blocks  stored  calls  structure lost
        ExpBackward0    explicit       1       0      1
        MulBackward0    explicit       1       4      0
        SliceBackward0  explicit       1       4      0
        SliceBackward0  explicit       1       4      0
    """
    check_function(func, None, "explain")

    @wraps(func)
    def report_of(*args: Any, **kwargs: Any) -> Report:
        recorded = record("explain", func, argnums, has_aux, args, kwargs)
        report = Report()
        with walking(recorded):
            accumulate_factors(recorded.captured.tape, recorded.shapes, report=report)
        return report

    return report_of
