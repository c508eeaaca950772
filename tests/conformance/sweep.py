"""Every op PyTorch describes in its own test database, against one `torch.autograd.grad` call per row.

The database (`op_db`) gives for each op a list of samples: shapes, dtypes, broadcasting, keyword
arguments, edge cases, all written by PyTorch's authors. Each sample is a function of its differentiable
tensors; torchjac must return what the row-by-row loop returns, in five modes:

    plain        jacrev(f)(x)
    vmap         vmap(jacrev(f))(two different x, stacked)
    hessian      jacrev(jacrev(g))(x), g a weighted sum of f
    inner_vmap   jacrev(vmap(f))(two different x, stacked)
    forward      jacfwd(f)(x)

Of plain mode it also tells how the structured walk went: which kinds of rules it found, whether structure
was kept, and how often backward formulas were called; ``--report`` writes that as a table of the ops.

Run ``python tests/conformance/sweep.py --help`` for the command line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

# Private, but it is the tree torch.func's own transforms flatten (torch 2.9-2.13).
from torch.utils import _pytree as pytree

import torchjac
from torchjac._accumulate.plan import goes_in_columns

try:  # this folder is on the path when run as a script or under its conftest.py
    from exemptions import exemption
except ImportError:
    from tests.conformance.exemptions import exemption

MODES = ("plain", "vmap", "hessian", "inner_vmap", "forward")

#: A sample is compared while it has at most so many Jacobian entries.
MAX_ENTRIES = 10**6

#: A Hessian is compared while the function has at most so many inputs: a million entries again.
MAX_HESSIAN_INPUTS = 1000

#: Second derivatives cancel more: they are compared to so many times the tolerance.
HESSIAN_SLACK = 100.0

#: dtype → (rtol, atol); atol is in units of the largest entry, or of 1 where that is smaller
TOLERANCES = {torch.float64: (1e-7, 1e-9), torch.float32: (1e-3, 1e-4)}

Function = Callable[[list[Tensor]], tuple[Tensor, ...]]
Rows = list[list[Tensor]]
Around = Callable[[], AbstractContextManager[Any]]
Transform = Callable[..., Callable[..., Any]]


@contextmanager
def forced(walk: str = "auto") -> Iterator[None]:
    """What surrounds every torchjac call: "auto" lets jacrev choose its way, any other is forced.

    Most samples are tiny, and there jacrev rightly leaves its own walk aside: then it would go untested.
    """
    module = sys.modules["torchjac._transforms.jacrev"]
    before = module.way
    if walk == "columns":
        module.way = lambda tape, _: walk if goes_in_columns(tape) else "structure"
    elif walk != "auto":
        module.way = lambda *_: walk
    try:
        yield
    finally:
        module.way = before


WALKS: dict[str, Around] = {walk: partial(forced, walk) for walk in ("auto", "structure", "rows", "columns")}


# ---------------------------------------------------------------------------------------------- samples


def label(op: Any) -> str:
    """The op's name with its variant."""
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def differentiable_ops(dtype: torch.dtype = torch.float64) -> list[Any]:
    """The ops of the database with autograd support for a dtype on the CPU."""
    return [
        op
        for op in op_db
        if op.supports_autograd and dtype in op.supported_dtypes("cpu") & op.supported_backward_dtypes("cpu")
    ]


#: Seeds the CPU alone. `torch.manual_seed` also keeps a stack trace for each kind of GPU that is not there,
#: which took four fifths of the time of a sweep (torch 2.13).
_seed_cpu = torch.default_generator.manual_seed


def reseed() -> None:
    """Start every random stream anew, so that two calls of one random op draw the same numbers."""
    _seed_cpu(0)
    random.seed(0)
    np.random.seed(0)


def samples(op: Any, dtype: torch.dtype = torch.float64) -> list[Any]:
    """The op's samples, the same at every call."""
    reseed()
    with warnings.catch_warnings(), mock.patch("torch.manual_seed", _seed_cpu):
        warnings.simplefilter("ignore")
        return list(op.sample_inputs("cpu", dtype, requires_grad=True))


def in_fraction(name: str, index: int, part: int, parts: int, salt: str = "") -> bool:
    """Whether a sample belongs to one of ``parts`` equal parts; the same on every machine."""
    return zlib.crc32(f"{salt}{name}#{index}".encode()) % parts == part


class Skip(Exception):
    """The sample cannot be compared, through no fault of torchjac."""


@dataclass(repr=False)  # vmap prints the function that it maps, at each call, and with it all that it holds
class Problem:
    """A sample as a function of its differentiable tensors; each call works on fresh copies of the rest.

    ``known`` holds what was found out about it before, such as the loop's answers, or why there are none.
    """

    call: Callable[[list[Tensor]], list[Any]]
    inputs: list[Tensor]
    keep: tuple[int, ...] = ()
    known: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        leaves = self.call(inputs)
        return tuple(leaves[k] for k in self.keep)

    def once(self, what: str, find: Callable[[], Any]) -> Any:
        """What was found out before, or is now; a Skip is raised again."""
        if what not in self.known:
            try:
                self.known[what] = find()
            except Skip as reason:
                self.known[what] = reason
        if isinstance(self.known[what], Skip):
            raise self.known[what]
        return self.known[what]

    def fresh(self) -> list[Tensor]:
        """Copies of the inputs, outside every graph."""
        return [tensor.clone() for tensor in self.inputs]


def problem(op: Any, sample: Any, complex_outputs: bool = False) -> Problem:
    """The function a sample stands for; raises Skip where there is nothing real to differentiate.

    With ``complex_outputs``, complex outputs are seen through `torch.view_as_real`; else they are skipped.
    """
    leaves, spec = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
    chosen = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not chosen:
        raise Skip("no differentiable input")
    if any(leaves[k].is_complex() for k in chosen):
        raise Skip("complex input")
    if any(leaves[k].layout is not torch.strided for k in chosen):
        raise Skip("sparse input")

    def call(inputs: list[Tensor]) -> list[Any]:
        filled = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for k, tensor in zip(chosen, inputs, strict=True):
            filled[k] = tensor
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        reseed()
        outputs = pytree.tree_leaves(sample.output_process_fn_grad(op(first, *args, **kwargs)))
        if complex_outputs:
            outputs = [
                torch.view_as_real(leaf) if isinstance(leaf, Tensor) and leaf.is_complex() else leaf
                for leaf in outputs
            ]
        return outputs

    found = Problem(call, [leaves[k].detach().clone() for k in chosen])
    try:
        with torch.enable_grad():
            outputs = call([tensor.requires_grad_() for tensor in found.fresh()])
    except Exception as error:
        raise Skip(f"loop fails: {brief(error)}") from error
    kept = [(k, leaf) for k, leaf in enumerate(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not kept:
        raise Skip("no differentiable output")
    if any(leaf.is_complex() for _, leaf in kept):
        raise Skip("complex output")
    if any(leaf.layout is not torch.strided for _, leaf in kept):
        raise Skip("sparse output")
    if total(found.inputs) * total([leaf for _, leaf in kept]) > MAX_ENTRIES:
        raise Skip("too large")
    found.keep = tuple(k for k, _ in kept)
    return found


def problem_or_skip(op: Any, sample: Any, complex_outputs: bool = False) -> Problem | Skip:
    """The function a sample stands for, or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return problem(op, sample, complex_outputs)
        except Skip as reason:
            return reason


def total(tensors: Sequence[Tensor]) -> int:
    """How many elements some tensors have together."""
    return sum(tensor.numel() for tensor in tensors)


def brief(error: BaseException) -> str:
    """An exception in one short line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}"


# ---------------------------------------------------------------------------------------------- the loop


def loop_jacobian(f: Function, inputs: Sequence[Tensor]) -> Rows:
    """The Jacobian of ``f`` row by row: one `torch.autograd.grad` for each output element.

    Returns a tensor of shape output.shape + input.shape for each output and input.
    """
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        outputs = f(leaves)
    return [loop_rows(output, leaves) for output in outputs]


def loop_hessian(g: Callable[[list[Tensor]], Tensor], inputs: Sequence[Tensor]) -> Rows:
    """The Hessian of a scalar function row by row over its gradient."""
    with torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        grads = torch.autograd.grad(g(leaves), leaves, create_graph=True, allow_unused=True)
        pairs = zip(grads, leaves, strict=True)
        filled = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in pairs]
    return [loop_rows(grad, leaves) for grad in filled]


def loop_rows(output: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The rows of one output, stacked for each input."""
    n = output.numel()
    jacobians = [torch.zeros(n, *leaf.shape, dtype=leaf.dtype) for leaf in leaves]
    for k in range(n if output.requires_grad and total(leaves) else 0):
        seed = torch.zeros(n, dtype=output.dtype)
        seed[k] = 1
        row = torch.autograd.grad(
            output, leaves, seed.reshape(output.shape), retain_graph=True, allow_unused=True
        )
        for jacobian, part in zip(jacobians, row, strict=True):
            if part is not None:
                jacobian[k] = part.detach()
    return [
        jacobian.reshape(output.shape + leaf.shape) for jacobian, leaf in zip(jacobians, leaves, strict=True)
    ]


# ---------------------------------------------------------------------------------------------- verdicts


@dataclass
class Outcome:
    """What comparing one sample in one mode found.

    ``status``: ok, wrong, error, "loop nan" (the loop has NaN where torchjac has a finite number, and all
    else agrees: 0·inf off the structure), exempt (wrong or error, but PyTorch is at fault), "loop fails" or
    skip.
    """

    status: str
    note: str = ""
    diff: float = 0.0
    seconds: float = 0.0
    walk: Walk | None = None


@dataclass
class Walk:
    """How the structured walk of a sample went.

    ``kinds`` counts its nodes by the kind of their rule, ``opaque`` names those without one, ``lost`` those
    where structure was lost; ``calls`` counts calls of backward formulas, ``rows`` what the loop needs.
    """

    kinds: dict[str, int]
    opaque: list[str]
    lost: list[str]
    calls: int
    rows: int


def walked(f: Problem) -> Walk:
    """The structured walk of a sample, told by `torchjac.explain`."""
    steps = torchjac.explain(f)(f.fresh()).steps
    return Walk(
        dict(Counter(step.kind for step in steps)),
        sorted({step.name for step in steps if step.kind == "opaque"}),
        sorted({step.name for step in steps if step.lost}),
        sum(step.calls for step in steps),
        total(f(f.fresh())),
    )


def compare(got: Any, expected: Rows, slack: float = 1.0) -> Outcome:
    """One Jacobian against another: shapes, dtypes, then values, to ``slack`` times the tolerance."""
    worst = 0.0
    where = ""
    loop_nan = 0
    finite = [e[e.isfinite()].abs().flatten() for row in expected for e in row]
    scale = max([1.0, *(float(part.max()) for part in finite if part.numel())])
    if len(got) != len(expected):
        return Outcome("wrong", f"{len(got)} outputs, expected {len(expected)}")
    for o, (got_row, expected_row) in enumerate(zip(got, expected, strict=True)):
        if len(got_row) != len(expected_row):
            return Outcome("wrong", f"{len(got_row)} inputs, expected {len(expected_row)}")
        for i, (a, e) in enumerate(zip(got_row, expected_row, strict=True)):
            if a.shape != e.shape:
                return Outcome("wrong", f"out {o} in {i}: shape {tuple(a.shape)}, expected {tuple(e.shape)}")
            if a.dtype != e.dtype:
                return Outcome("wrong", f"out {o} in {i}: dtype {a.dtype}, expected {e.dtype}")
            rtol, atol = TOLERANCES.get(e.dtype, (1e-2, 1e-2))
            off = ~torch.isclose(a, e, rtol=rtol * slack, atol=atol * slack * scale, equal_nan=True)
            excused = off & e.isnan() & a.isfinite()
            loop_nan += int(excused.sum())
            off &= ~excused
            if off.any():
                gap = (a - e)[off].abs()
                size = float("inf") if gap.isnan().any() else float(gap.max())
                if size >= worst:
                    worst = size
                    at = tuple(int(n) for n in off.nonzero()[0])
                    counts = f"{int(off.sum())} of {off.numel()} off"
                    where = f"out {o} in {i} at {at}: {float(a[at]):.8g}, loop {float(e[at]):.8g}; {counts}"
    if where:
        return Outcome("wrong", where, worst)
    if loop_nan:
        return Outcome("loop nan", f"{loop_nan} entries")
    return Outcome("ok")


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
            reason = exemption(label(op), mode)
            if reason and outcome.status in ("wrong", "error"):
                outcome = Outcome("exempt", reason)
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


def _judged(
    run: Callable[[Transform], Any],
    expected: Rows,
    around: Around,
    slack: float = 1.0,
    transform: Transform = torchjac.jacrev,
) -> Outcome:
    """Compare what ``run`` returns, an exception counting too; a failure tells how torch.func fares."""
    try:
        with around():
            outcome = compare(run(transform), expected, slack)
    except Exception as error:
        outcome = Outcome("error", f"{brief(error)}  [{_site(error)}]")
    if outcome.status in ("wrong", "error") and transform is torchjac.jacrev:
        theirs = _judged(run, expected, nullcontext, slack, torch.func.jacrev)
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
    expected = f.once("loop", lambda: _expected(lambda: loop_jacobian(f, f.inputs)))
    outcome = _judged(lambda jacrev: jacrev(f)(f.fresh()), expected, around)
    if outcome.status not in ("wrong", "error") and around is WALKS["structure"]:
        outcome.walk = walked(f)
    return outcome


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
        first = f.once("loop", lambda: _expected(lambda: loop_jacobian(f, f.inputs)))
        second = _expected(lambda: loop_jacobian(f, both[1]))
        return [
            [torch.stack(pair) for pair in zip(*rows, strict=True)]
            for rows in zip(first, second, strict=True)
        ]

    outcome = _judged(
        lambda jacrev: torch.func.vmap(jacrev(f), randomness="same")([x.clone() for x in stacked]),
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
        return _expected(lambda: loop_jacobian(mapped, stacked))

    expected = f.once("loop over vmap", loop)
    return _judged(lambda jacrev: jacrev(mapped)([x.clone() for x in stacked]), expected, around)


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
    return _judged(lambda jacrev: jacrev(jacrev(g))(f.fresh()), expected, around, HESSIAN_SLACK)


def _forward(op: Any, f: Problem, around: Around) -> Outcome:
    """Jacfwd in the input's dtype, as the loop is.

    Where an op selects what it lets pass, a cotangent that is NaN is dropped and a tangent is none yet: a NaN
    that torch.func.jacfwd gives too is no difference.
    """
    expected = f.once("loop", lambda: _expected(lambda: loop_jacobian(f, f.inputs)))

    def run(jacrev: Transform) -> Any:
        jacfwd = torchjac.jacfwd if jacrev is torchjac.jacrev else torch.func.jacfwd
        found = [[a.to(x.dtype) for a, x in zip(row, f.inputs, strict=True)] for row in jacfwd(f)(f.fresh())]
        if not any(bool((a.isnan() & ~e.isnan()).any()) for a, e in _pairs(found, expected)):
            return found
        theirs = torch.func.jacfwd(f)(f.fresh())
        return [
            [torch.where(a.isnan() & b.isnan(), e, a) for a, b, e in zip(*rows, strict=True)]
            for rows in zip(found, theirs, expected, strict=True)
        ]

    return _judged(run, expected, around)


def _pairs(found: Rows, expected: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    for ours, loops in zip(found, expected, strict=True):
        yield from zip(ours, loops, strict=True)


CHECKS: dict[str, Callable[[Any, Problem, Around], Outcome]] = {
    "plain": _plain,
    "vmap": _vmap,
    "hessian": _hessian,
    "inner_vmap": _inner_vmap,
    "forward": _forward,
}


# ---------------------------------------------------------------------------------------------- command


@dataclass
class Result:
    """The outcome of one sample in one mode, with its place."""

    op: str
    sample: int
    mode: str
    status: str
    note: str
    diff: float
    seconds: float
    walk: dict[str, Any] | None = None


def run_op(op: Any, options: argparse.Namespace) -> Iterator[Result]:
    """Every chosen sample of an op in every chosen mode."""
    name = label(op)
    try:
        found = samples(op, options.dtype)
    except Exception as error:
        yield Result(name, -1, "all", "loop fails", f"no samples: {brief(error)}", 0.0, 0.0)
        return
    for index, sample in enumerate(found):
        if options.sample is not None and index != options.sample:
            continue
        if options.fraction and not in_fraction(name, index, *options.fraction):
            continue
        shared = problem_or_skip(op, sample, options.complex_outputs)
        for mode in options.modes:
            for walk in options.walks:
                outcome = check(op, sample, mode, WALKS[walk], shared)
                yield Result(name, index, f"{mode} {walk}", **asdict(outcome))


def _work(connection: Any, options: argparse.Namespace) -> None:
    """A worker: receives an op's number, sends its results, then None."""
    torch.set_num_threads(1)
    ops = differentiable_ops(options.dtype)
    while (number := connection.recv()) is not None:
        for result in run_op(ops[number], options):
            connection.send(result)
        connection.send(None)


def run_all(options: argparse.Namespace) -> list[Result]:
    """Share the ops among worker processes; an op that crashes its process or takes too long is an error."""
    names = [label(op) for op in differentiable_ops(options.dtype)]
    todo = [n for n, name in reversed(list(enumerate(names))) if re.search(options.ops, name)]
    results: list[Result] = []
    working: dict[Any, tuple[Any, int, float]] = {}

    def start() -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=_work, args=(theirs, options), daemon=True)
        process.start()
        theirs.close()
        give(ours, process)

    def give(connection: Any, process: Any) -> None:
        number = todo.pop() if todo else None
        connection.send(number)
        if number is not None:
            working[connection] = (process, number, time.monotonic())
        else:
            working.pop(connection, None)

    def lose(connection: Any, reason: str) -> None:
        process, number, began = working.pop(connection)
        process.terminate()
        results.append(Result(names[number], -1, "all", "error", reason, 0.0, time.monotonic() - began))
        if todo:
            start()

    for _ in range(min(options.jobs, len(todo))):
        start()
    while working:
        for connection in wait(list(working), timeout=1.0):
            process, number, _ = working[connection]
            try:
                result = connection.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                lose(connection, f"the process died, exit code {process.exitcode}")
                continue
            if result is None:
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r{len(todo):4d} ops to go  {names[number]:60.60s}")
                    sys.stderr.flush()
                give(connection, process)
            else:
                results.append(result)
        for connection, (_, _, began) in list(working.items()):
            if time.monotonic() - began > options.limit:
                lose(connection, f"more than {options.limit} s")
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return results


COLUMNS = ("ok", "wrong", "error", "loop nan", "exempt", "loop fails", "skip")


def table(results: Sequence[Result], everything: bool) -> str:
    """Counts by op and mode (only ops with a failure unless ``everything``), the failures, the totals."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.op, result.mode].append(result)
    titles = " ".join(f"{column:>10s}" for column in COLUMNS)
    head = f"{'op':50s} {'mode, walk':22s} samples {titles}    seconds"
    lines = [head]

    def line(name: str, mode: str, rows: Sequence[Result]) -> str:
        counts = Counter(row.status for row in rows)
        cells = " ".join(f"{counts[column] or '.':>10}" for column in COLUMNS)
        return f"{name:50.50s} {mode:22s} {len(rows):7d} {cells} {sum(row.seconds for row in rows):10.2f}"

    for (name, mode), rows in sorted(groups.items()):
        if everything or any(row.status in ("wrong", "error", "loop nan") for row in rows):
            lines.append(line(name, mode, rows))
    failures = [row for row in results if row.status in ("wrong", "error", "loop nan")]
    if failures:
        lines.append("")
    for row in sorted(failures, key=lambda row: (row.op, row.sample, row.mode)):
        gap = f"max diff {row.diff:.3g}  " if row.status == "wrong" else ""
        lines.append(f"{row.status:8s} {row.op} #{row.sample} {row.mode}: {gap}{row.note}")
    lines += ["", head]
    for mode in dict.fromkeys(row.mode for row in results):
        lines.append(line("total", mode, [row for row in results if row.mode == mode]))
    return "\n".join(lines)


KINDS = ("explicit", "independent", "opaque")


def report(results: Sequence[Result]) -> str:
    """A table in Markdown: for each op the kinds of rules used, what lost structure, and the calls needed."""
    ops: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if result.walk is not None:
            ops[result.op].append(result.walk)
    titles = ["op", "samples", *KINDS, "structure lost in", "at", "node calls", "rows of the loop"]
    lines = [
        "# Rules, structure and calls by op\n",
        "Written by `sweep.py --report`; what the columns say stands in [README.md](README.md).\n",
        f"| {' | '.join(titles)} |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for op, walks in sorted(ops.items()):
        nodes = [sum(walk["kinds"].get(kind, 0) for walk in walks) for kind in KINDS]
        lost = sum(bool(walk["lost"]) for walk in walks)
        names = sorted({name for walk in walks for name in walk["lost"]})
        calls, rows = (sum(walk[key] for walk in walks) for key in ("calls", "rows"))
        cells = [op, len(walks), *nodes, lost, ", ".join(names), calls, rows]
        lines.append("| " + " | ".join(str(cell) if cell != 0 else "·" for cell in cells) + " |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Compare torchjac with the row-by-row loop on PyTorch's op database."
    )
    parser.add_argument("--ops", default="", metavar="REGEX", help="only ops whose name matches")
    parser.add_argument("--sample", type=int, help="only this sample of each op")
    parser.add_argument("--mode", default="plain", choices=(*MODES, "all"))
    parser.add_argument(
        "--walk",
        default="structure",
        metavar="WALKS",
        help=f"which ways torchjac is to take: {', '.join(WALKS)}",
    )
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--jobs", type=int, default=2, help="worker processes, one thread each")
    parser.add_argument("--fraction", metavar="K/N", help="only the K-th of N parts of the samples, K from 0")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds an op may take in all")
    parser.add_argument("--complex-outputs", action="store_true", help="view complex outputs as real ones")
    parser.add_argument("--all-rows", action="store_true", help="print the ops without failures too")
    parser.add_argument("--json", metavar="PATH", help="write every outcome there")
    parser.add_argument("--report", metavar="PATH", help="write the table of rules and calls there")
    options = parser.parse_args(arguments)
    options.dtype = getattr(torch, options.dtype)
    options.modes = MODES if options.mode == "all" else (options.mode,)
    options.walks = tuple(options.walk.split(","))
    if not set(options.walks) <= set(WALKS):
        parser.error(f"--walk {options.walk}: must be some of {', '.join(WALKS)}, with commas")
    if options.fraction:
        part, parts = map(int, options.fraction.split("/"))
        if not 0 <= part < parts:
            parser.error(f"--fraction {options.fraction}: K must be in [0, N)")
        options.fraction = (part, parts)
    return options


def main() -> int:
    """Run the sweep; the exit code says whether anything was wrong."""
    options = parse()
    results = run_all(options)
    print(table(results, options.all_rows))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([asdict(result) for result in results], file, indent=1)
    if options.report:
        with open(options.report, "w") as file:
            file.write(report(results) + "\n")
    return int(any(result.status in ("wrong", "error") for result in results))


if __name__ == "__main__":
    sys.exit(main())
