"""Whether structure is kept: the entries that blocks name, beside those that are not zero at random points.

first_order     jacobian(f)(x)
second_order    jacobian(jacrev(g))(x), g a weighted sum of f and of its squares

The true pattern is the union over a few points around x of the entries that the row-by-row loop does not find to be
zero: an op that chooses by values (sort, relu) has another one at each, and what blocks name at x is compared with
them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tests.conformance.compare import Outcome
from tests.conformance.loop import Rows, loop_hessian, loop_jacobian
from tests.conformance.problems import Problem, Skip, brief, total
from tests.conformance.reasons import reasons
from tests.conformance.walks import Around
from torch import Tensor

import torchjac
from torchjac import Jacobian

#: A sample is looked at while its inputs have at most so many entries.
MAX_CELLS = 200

#: How many points around that of the sample
POINTS = 4

#: How far, of the size of the entries
REACH = (0.1, 0.5, 1.0, 2.0)


def points(f: Problem) -> Iterator[list[Tensor]]:
    """The inputs of the sample, then others at growing distances from them."""
    yield f.fresh()
    stream = torch.Generator().manual_seed(2)
    for reach in REACH:
        yield [x + reach * torch.randn(x.shape, generator=stream, dtype=x.dtype) for x in f.inputs]


def scalar(f: Problem) -> Callable[[list[Tensor]], Tensor]:
    """A weighted sum of all outputs and of their squares."""
    stream = torch.Generator().manual_seed(1)
    weights = [
        torch.rand(y.shape, generator=stream, dtype=y.dtype) + 0.5 if y.is_floating_point() else None
        for y in f(f.fresh())
    ]

    def g(inputs: list[Tensor]) -> Tensor:
        return sum((weight * (y + y.square())).sum() for weight, y in zip(weights, f(inputs), strict=True))

    return g


def pattern(rows: Callable[[list[Tensor]], Rows], f: Problem) -> list[list[Tensor]]:
    """The entries that are not zero at some point; raises Skip where the loop fails at the sample's own."""
    found: list[list[Tensor]] = []
    for number, inputs in enumerate(points(f)):
        try:
            at = [[part != 0 for part in row] for row in rows(inputs)]
            finite = all(bool(y.isfinite().all()) for y in f([x.clone() for x in inputs]))
        except Exception as error:
            if number == 0:
                raise Skip(f"loop fails: {brief(error)}") from error
            continue
        if number == 0:
            found = at
        elif finite and [[p.shape for p in row] for row in at] == [[p.shape for p in row] for row in found]:
            found = [[a | b for a, b in zip(*pair, strict=True)] for pair in zip(found, at, strict=True)]
    return found


def judge(found: Sequence[Sequence[Jacobian]], true: list[list[Tensor]]) -> Outcome:
    """Compare what blocks name with the true pattern: some that are lost have a reason, others are "unexplained"."""
    named = kept = 0
    why: dict[str, str] = {}
    for row, expected in zip(found, true, strict=True):
        for J, entries in zip(row, expected, strict=True):
            at = J.pattern().to_dense().bool().reshape(entries.shape) if J.shape.numel() else entries
            named, kept = named + int(at.sum()), kept + int(entries.sum())
            if (at & ~entries).any():
                why.update(reasons(J))
    if named <= kept:
        return Outcome("ok")
    told = "; ".join(f"{where}: {reason or 'NO REASON KNOWN'}" for where, reason in why.items())
    status = "loses" if all(why.values()) else "unexplained"
    return Outcome(status, f"{named} entries named, {kept} not zero. {told}", named / max(kept, 1))


def first_order(f: Problem, around: Around) -> Outcome:
    """The Jacobian of a sample."""
    if total(f.inputs) > MAX_CELLS:
        raise Skip("too large")
    true = pattern(lambda inputs: loop_jacobian(f, inputs, f.together), f)
    with around():
        return judge(torchjac.jacobian(f)(f.fresh()), true)


def second_order(op: Any, f: Problem, around: Around) -> Outcome:
    """The Jacobian of the gradient of a weighted sum."""
    if not op.supports_gradgrad:
        raise Skip("no second derivative")
    if total(f.inputs) > MAX_CELLS:
        raise Skip("too large")
    g = scalar(f)
    true = pattern(lambda inputs: loop_hessian(g, inputs), f)
    with around():
        return judge(torchjac.jacobian(torchjac.jacrev(g))(f.fresh()), true)
