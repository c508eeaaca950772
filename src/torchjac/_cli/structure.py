"""The Jacobians of a problem, each with a name, and what is told of them."""

from __future__ import annotations

from typing import NamedTuple

from .._accumulate.report import Report
from .._answers import picture
from .._answers.operator import Jacobian
from .._torch import pytree
from .._transforms.jacobian import jacobian
from . import number_format
from .errors import refused
from .request import FunctionCall


class Named(NamedTuple):
    """One leaf of the answer; the name indexes it: ``J``, ``J['u'][0]``."""

    name: str
    jacobian: Jacobian


def look(problem: FunctionCall, progress: bool) -> list[Named]:
    """Return the structured Jacobians of every output with respect to every differentiated argument.

    Raises:
        Stop: where the function cannot be differentiated, with the reason.
    """
    try:
        answer = jacobian(problem.function, problem.argnums, progress=progress)(*problem.arguments)
    except Exception as error:  # the user's own code runs again, and its backward too
        raise refused(problem.in_words(), error) from error
    found, _ = pytree.tree_flatten_with_path(answer)
    return [Named("J" + pytree.keystr(path), leaf) for path, leaf in found]


def facts(found: Jacobian) -> dict[str, str]:
    """Return what there is to say of one Jacobian."""
    rows, columns = found.form.matrix_shape
    shape = f"{tuple(found.out_shape)} by {tuple(found.in_shape)}, a matrix of {rows:,} × {columns:,}"
    return {"shape": shape, **picture.facts(found.form)}


def lost_in_words(report: Report) -> str:
    """Return the summary of a walk, and where structure was lost, a line for each place."""
    rows = [[f"  {step.name}", step.lost] for step in report.lost]
    return "\n".join([report.summary, *([number_format.table(rows, set())] if rows else [])])
