"""Who is compared: each peer makes, of a problem, a call and a way to read its answer.

A peer that a problem does not call for raises `NotForThisError`; a library that is not installed, ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import torchjac

from . import outside
from .answers import NotForThisError, Numbers, at_places, blocks_of, dense_numbers
from .problem import Problem
from .timing import TooSlowError, limited, turn

#: Sizes tried for "best chunk".
CHUNKS = (16, 64, 256)


@dataclass(frozen=True)
class Built:
    """A peer ready to run: what is timed, how its answer is read, and what else is worth telling."""

    call: Callable[[], Any]
    numbers: Callable[[Any], Numbers]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        name: as it is printed.
        answer: "dense", "structured", or "" for what is no answer: the function itself.
        make: gives a `Built`, or raises.
        compiles: whether the first call compiles for seconds: it runs in the dtypes of ``--compile``.
        flagged: whether it is run on the workloads marked `compiled` only, unless ``--compile-all`` is given.
    """

    name: str
    answer: str
    make: Callable[[Problem], Built]
    compiles: bool = False
    flagged: bool = False


def built(
    problem: Problem, call: Callable[..., Any], numbers: Callable[[Any], Numbers], **notes: Any
) -> Built:
    """A call on the problem's tensors."""
    return Built(partial(call, problem.x, *problem.constants), numbers, notes)


def twice(problem: Problem, outer: Callable[..., Any], inner: Callable[..., Any]) -> Callable[..., Any]:
    """The transform of a workload of first or second order."""
    if problem.workload.order == 1:
        return outer
    return lambda function: outer(inner(function))


def called(problem: Problem, jac: Callable[..., Any]) -> Callable[..., Any]:
    """The workload's spelling with a Jacobian of torch's kind; under vmap where that is part of it."""
    if problem.workload.batched:
        if problem.workload.by_hand is not None:
            return problem.workload.by_hand(torch.func.vmap, jac, problem.function)
        return lambda x, *constants: torch.func.vmap(jac(lambda row: problem.function(row, *constants)))(x)
    return problem.with_transform(jac, problem.function)


def dense(problem: Problem, jac: Callable[..., Any], **notes: Any) -> Built:
    """A dense answer by a transform of torch's kind."""
    return built(problem, called(problem, jac), dense_numbers, **notes)


def ours_dense(problem: Problem) -> Built:
    """torchjac.jacrev, or hessian."""
    return dense(problem, torchjac.jacrev if problem.workload.order == 1 else torchjac.hessian)


def structured_call(problem: Problem) -> Callable[..., Any]:
    """torchjac.jacobian of the function or of its gradient."""
    inner = problem.function if problem.workload.order == 1 else torchjac.grad(problem.function)
    return torchjac.jacobian(inner)


def ours_structured(problem: Problem) -> Built:
    """torchjac.jacobian."""
    if not problem.workload.structured:
        raise NotForThisError("the Jacobian is dense")
    return built(problem, structured_call(problem), blocks_of)


def ours_compiled(problem: Problem, answer: str) -> Built:
    """torchjac.compile of either."""
    if not hasattr(torchjac, "compile"):
        raise NotForThisError("torchjac.compile does not exist")
    if problem.workload.calls > 1:
        raise NotForThisError("a loop in Python")
    if answer == "structured":
        if not problem.workload.structured:
            raise NotForThisError("the Jacobian is dense")
        return built(problem, torchjac.compile(structured_call(problem)), blocks_of)
    jac = torchjac.jacrev if problem.workload.order == 1 else torchjac.hessian
    return built(problem, torchjac.compile(called(problem, jac)), dense_numbers)


def ours_forward(problem: Problem) -> Built:
    """torchjac.jacfwd."""
    if not hasattr(torchjac, "jacfwd"):
        raise NotForThisError("torchjac.jacfwd does not exist")
    if problem.workload.order == 2:
        raise NotForThisError("a Hessian")
    return dense(problem, torchjac.jacfwd)


def reverse(problem: Problem, **options: Any) -> Callable[..., Any]:
    """torch.func.jacrev, twice for a Hessian."""
    return twice(problem, partial(torch.func.jacrev, **options), torch.func.jacrev)


def forward(problem: Problem) -> Callable[..., Any]:
    """torch.func.jacfwd; for a Hessian over jacrev, which is torch.func.hessian."""
    return twice(problem, torch.func.jacfwd, torch.func.jacrev)


def best_chunk(problem: Problem) -> Built:
    """torch.func.jacrev in the fastest of a few chunk sizes; torch.func.jacfwd has no chunks."""
    rows = problem.sizes[0]
    found: list[tuple[float, int]] = []
    for chunk in [size for size in CHUNKS if size < rows]:
        trial = dense(problem, reverse(problem, chunk_size=chunk))
        try:
            with limited(3):
                found.append((turn(trial.call), chunk))
        except TooSlowError:
            continue
    if not found:
        raise NotForThisError(
            "too few rows for chunks" if rows <= CHUNKS[0] else "each chunk size takes over 3 s"
        )
    chunk = min(found)[1]
    return dense(problem, reverse(problem, chunk_size=chunk), chunk=chunk)


def by_hand(problem: Problem, answer: str, compiled: bool = False) -> Built:
    """vmap(jacrev), where a person would write that; its answer is dense or the blocks of the batch."""
    workload = problem.workload
    gives = "dense" if workload.by_hand_places is None else "structured"
    if workload.by_hand is None or workload.batched or gives != answer:
        raise NotForThisError("no spelling by vmap")
    call = workload.by_hand(torch.func.vmap, torch.func.jacrev, problem.function)
    numbers = dense_numbers if answer == "dense" else at_places(workload.by_hand_places)
    return built(problem, torch.compile(call) if compiled else call, numbers)


def compiled(problem: Problem, jac: Callable[..., Any]) -> Built:
    """torch.compile of a transform of torch.func."""
    if problem.workload.calls > 1:
        raise NotForThisError("a loop in Python")
    return built(problem, torch.compile(called(problem, jac(problem))), dense_numbers)


def compiled_forward(problem: Problem) -> Built:
    """torch.compile(torch.func.jacfwd), where there are fewer inputs than outputs."""
    rows, columns = problem.sizes
    if rows <= columns or problem.workload.order == 2:
        raise NotForThisError("not fewer inputs than outputs")
    return compiled(problem, forward)


def hand(problem: Problem, answer: str) -> Built:
    """The best a person would write in torch for this problem."""
    workload = problem.workload
    call = workload.hand if answer == "dense" else workload.blocks
    if call is None:
        raise NotForThisError("not written")
    numbers = dense_numbers if answer == "dense" else at_places(workload.blocks_places)
    return built(problem, call, numbers)


def function_itself(problem: Problem) -> Built:
    """The function, without derivatives."""
    return built(problem, problem.function, dense_numbers)


def writing(problem: Problem) -> Built:
    """The writing of a dense answer: zeros of its shape, and each number that is not zero put at its place."""
    workload = problem.workload
    places = workload.blocks_places or workload.by_hand_places
    if places is None:
        raise NotForThisError("its places are not written down")
    where = places()
    index = torch.from_numpy(where.rows * where.shape[1] + where.columns)
    values = torch.ones(index.numel(), dtype=getattr(torch, problem.dtype))

    def call(*_: Any) -> torch.Tensor:
        out = torch.zeros(where.shape, dtype=values.dtype)
        out.view(-1)[index] = values
        return out

    return built(problem, call, dense_numbers)


#: Every peer, ours first; in the table they stand in this order.
PEERS = [
    Peer("f", "", function_itself),
    Peer("writing", "", writing),
    Peer("torchjac", "dense", ours_dense),
    Peer("torchjac", "structured", ours_structured),
    Peer("torchjac.jacfwd", "dense", ours_forward),
    Peer("torchjac.compile", "dense", partial(ours_compiled, answer="dense"), True),
    Peer("torchjac.compile", "structured", partial(ours_compiled, answer="structured"), True),
    Peer("torch.func.jacrev", "dense", lambda problem: dense(problem, reverse(problem))),
    Peer("torch.func.jacrev, best chunk", "dense", best_chunk),
    Peer("torch.func.jacfwd", "dense", lambda problem: dense(problem, forward(problem))),
    Peer("vmap(jacrev)", "dense", partial(by_hand, answer="dense")),
    Peer("vmap(jacrev)", "structured", partial(by_hand, answer="structured")),
    Peer("torch.compile(jacrev)", "dense", partial(compiled, jac=reverse), True, True),
    Peer("torch.compile(jacfwd)", "dense", compiled_forward, True, True),
    Peer(
        "torch.compile(vmap(jacrev))",
        "structured",
        partial(by_hand, answer="structured", compiled=True),
        True,
        True,
    ),
    *[Peer(name, answer, partial(make, Built)) for name, answer, make in outside.MAKERS],
    Peer("hand", "dense", partial(hand, answer="dense")),
    Peer("hand", "structured", partial(hand, answer="structured")),
]
