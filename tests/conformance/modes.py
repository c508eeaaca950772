"""The modes in which a sample is compared with the row-by-row loop: its values in six, its structure in two.

plain        jacrev(f)(x)
chunks       jacrev(f, chunk_size=2)(x)
vmap         vmap(jacrev(f))(two different x, stacked)
hessian      jacrev(jacrev(g))(x), g a weighted sum of f
inner_vmap   jacrev(vmap(f))(two different x, stacked)
forward      jacfwd(f)(x)

first_order and second_order are told in `structure`.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import torch
from tests.conformance.compare import Outcome, compare
from tests.conformance.loop import Rows, loop_hessian, loop_jacobian
from tests.conformance.problems import MAX_ENTRIES, Problem, Skip, brief, problem_or_skip, total
from tests.conformance.structure import first_order, second_order
from tests.conformance.walks import WALKS, Around, forced, walked
from torch import Tensor

import torchjac

MODES = ("plain", "chunks", "vmap", "hessian", "inner_vmap", "forward")
STRUCTURES = ("first_order", "second_order")

#: A Hessian is compared while the function has at most so many inputs: a million entries again.
MAX_HESSIAN_INPUTS = 1000

#: Second derivatives cancel more: they are compared to so many times the tolerance.
HESSIAN_SLACK = 100.0

Transform = Callable[..., Callable[..., Any]]


def check(
    op: Any, sample: Any, mode: str = "plain", around: Around = forced, found: Problem | Skip | None = None
) -> Outcome:
    """Compare torchjac with the loop on one sample in one mode; ``around()`` surrounds each torchjac call.

    ``found`` is what `problem_or_skip` gave for the sample, if that was asked before.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = problem_or_skip(op, sample) if found is None else found
            if isinstance(found, Skip):
                raise found
            outcome = CHECKS[mode](op, found, around)
        except Skip as reason:
            note = str(reason)
            outcome = Outcome("loop fails" if note.startswith("loop fails") else "skip", note)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _expected(build: Callable[[], Rows]) -> Rows:
    try:
        return build()
    except Exception as error:
        raise Skip(f"loop fails: {brief(error)}") from error


def _loop(f: Problem) -> Rows:
    return _expected(lambda: loop_jacobian(f, f.inputs, f.together))


def _judged(
    run: Callable[[Transform, list[Tensor]], Any],
    inputs: list[Tensor],
    expected: Rows,
    around: Around,
    slack: float = 1.0,
    transform: Transform = torchjac.jacrev,
) -> Outcome:
    """Compare what ``run`` returns, an exception counting too; a failure tells how torch.func fares.

    Where programs are to be run again, other inputs go first, so that these find a program.
    """
    try:
        with around():
            if around in [WALKS[walk] for walk in WALKS if walk.startswith("planned")]:
                with suppress(Exception):  # a sample may not go with other numbers
                    run(transform, [_twin(tensor) for tensor in inputs])
            outcome = compare(run(transform, [tensor.clone() for tensor in inputs]), expected, slack)
    except Exception as error:
        outcome = Outcome("error", f"{brief(error)}  [{_site(error)}]")
    if outcome.status in ("wrong", "error") and transform is torchjac.jacrev:
        theirs = _judged(run, inputs, expected, nullcontext, slack, torch.func.jacrev)
        outcome.note += f"  (torch.func: {theirs.status})"
    return outcome


def _site(error: BaseException) -> str:
    """The innermost frame of torchjac in a traceback, and the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if "torchjac" in frame.filename.replace("\\", "/").split("/")]
    shown = [
        f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
        for frame in (inside or frames)[-1:] + frames[-1:]
    ]
    return " < ".join(dict.fromkeys(shown))


def _plain(op: Any, f: Problem, around: Around) -> Outcome:
    expected = f.once("loop", lambda: _loop(f))
    outcome = _judged(lambda jacrev, inputs: jacrev(f)(inputs), f.inputs, expected, around)
    if outcome.status not in ("wrong", "error") and around is WALKS["structure"]:
        outcome.walk = walked(f)
    return outcome


def _chunks(op: Any, f: Problem, around: Around) -> Outcome:
    expected = f.once("loop", lambda: _loop(f))
    return _judged(lambda jacrev, inputs: jacrev(f, chunk_size=2)(inputs), f.inputs, expected, around)


def _twin(tensor: Tensor) -> Tensor:
    """Other numbers that fit the op as well.

    Turned round in every dim, so that sorting differs (a positive definite matrix stays one), and scaled
    down a little, so that a bounded domain still holds them.
    """
    return tensor.flip(tuple(range(tensor.dim()))) * (1 - 1 / 1024)


def _pair(f: Problem) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Two inputs, and the same stacked; raises Skip where vmap cannot run the function on them."""
    both = [f.fresh(), [_twin(tensor) for tensor in f.inputs]]
    stacked = [torch.stack(pair) for pair in zip(*both, strict=True)]
    try:
        apart = [f([x.clone() for x in inputs]) for inputs in both]
    except Exception as error:
        raise Skip(f"loop fails: {brief(error)}") from error
    try:
        together = torch.func.vmap(f, randomness="same")([x.clone() for x in stacked])
    except Exception as error:
        raise Skip(f"vmap fails: {brief(error)}") from error
    for n, outputs in enumerate(apart):
        for one, many in zip(outputs, together, strict=True):
            if one.shape != many[n].shape or not torch.allclose(one, many[n], equal_nan=True):
                raise Skip("vmap of the op differs from the op")
    return both, stacked


def _vmap(op: Any, f: Problem, around: Around) -> Outcome:
    both, stacked = f.once("pair", lambda: _pair(f))

    def loops() -> Rows:
        first = f.once("loop", lambda: _loop(f))
        second = _expected(lambda: loop_jacobian(f, both[1], f.together))
        return [
            [torch.stack(pair) for pair in zip(*rows, strict=True)]
            for rows in zip(first, second, strict=True)
        ]

    outcome = _judged(
        lambda jacrev, inputs: torch.func.vmap(jacrev(f), randomness="same")(inputs),
        stacked,
        f.once("loops", loops),
        around,
    )
    if outcome.status == "error":
        try:
            torch.func.vmap(_one_row(f), randomness="same")([x.clone() for x in stacked])
        except Exception as error:
            raise Skip(f"vmap of the backward fails: {brief(error)}") from error
    return outcome


def _one_row(f: Problem) -> Callable[[list[Tensor]], Any]:
    """A row of the Jacobian, by torch.func."""

    def row(inputs: list[Tensor]) -> Any:
        outputs, pull = torch.func.vjp(f, inputs)
        return pull(tuple(torch.ones_like(output) for output in outputs))

    return row


def _inner_vmap(op: Any, f: Problem, around: Around) -> Outcome:
    _, stacked = f.once("pair", lambda: _pair(f))

    def mapped(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.func.vmap(f, randomness="same")(inputs)

    def loop() -> Rows:
        if total(stacked) * total(mapped([x.clone() for x in stacked])) > MAX_ENTRIES:
            raise Skip("too large")
        return _expected(lambda: loop_jacobian(mapped, stacked, f.together))

    expected = f.once("loop over vmap", loop)
    return _judged(lambda jacrev, inputs: jacrev(mapped)(inputs), stacked, expected, around)


def _hessian(op: Any, f: Problem, around: Around) -> Outcome:
    if not op.supports_gradgrad:
        raise Skip("no second derivative")
    if total(f.inputs) > MAX_HESSIAN_INPUTS:
        raise Skip("too large")
    stream = torch.Generator().manual_seed(1)
    weights = [
        torch.rand(y.shape, generator=stream, dtype=y.dtype) + 0.5 if y.is_floating_point() else None
        for y in f(f.fresh())
    ]

    def g(inputs: list[Tensor]) -> Tensor:
        return sum((weight * y).sum() for weight, y in zip(weights, f(inputs), strict=True))

    expected = f.once("loop twice", lambda: _expected(lambda: loop_hessian(g, f.inputs)))
    return _judged(
        lambda jacrev, inputs: jacrev(jacrev(g))(inputs), f.inputs, expected, around, HESSIAN_SLACK
    )


def _forward(op: Any, f: Problem, around: Around) -> Outcome:
    """Jacfwd in the input's dtype, as the loop is.

    Where an op selects what it lets pass, a cotangent that is NaN is dropped and a tangent is none yet: a NaN
    that torch.func.jacfwd gives too is no difference.
    """
    expected = f.once("loop", lambda: _loop(f))

    def run(jacrev: Transform, inputs: list[Tensor]) -> Any:
        jacfwd = torchjac.jacfwd if jacrev is torchjac.jacrev else torch.func.jacfwd
        found = [[a.to(x.dtype) for a, x in zip(row, f.inputs, strict=True)] for row in jacfwd(f)(inputs)]
        if not any(bool((a.isnan() & ~e.isnan()).any()) for a, e in _pairs(found, expected)):
            return found
        theirs = torch.func.jacfwd(f)(f.fresh())
        return [
            [torch.where(a.isnan() & b.isnan(), e, a) for a, b, e in zip(*rows, strict=True)]
            for rows in zip(found, theirs, expected, strict=True)
        ]

    return _judged(run, f.inputs, expected, around)


def _pairs(found: Rows, expected: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    for ours, loops in zip(found, expected, strict=True):
        yield from zip(ours, loops, strict=True)


CHECKS: dict[str, Callable[[Any, Problem, Around], Outcome]] = {
    "plain": _plain,
    "chunks": _chunks,
    "vmap": _vmap,
    "hessian": _hessian,
    "inner_vmap": _inner_vmap,
    "forward": _forward,
    "first_order": lambda op, f, around: first_order(f, around),
    "second_order": second_order,
}
