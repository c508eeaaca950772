"""Measure one everyday call: ours, and torch.func's ways, each checked against a loop over rows of autograd.grad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import torchjac

from ..answers import dense_numbers, difference
from ..problem import leaves, tree
from ..timing import TooSlowError, alternate, limited, turn
from .call import Call

#: torch.func's chunk sizes of rows, where there are more rows than that; 1 only up to so many rows
CHUNKS, MOST_ALONE = (1, 16, 64), 128
#: Forward mode is asked for where an output goes with at most so many inputs, and a few more
WIDER, FEW = 8, 64
#: Whose first call takes so many times the fastest one's takes no turns
FAR = 4
#: So many calls of ours come before the turns, or as many as fit into so many times the seconds of a way, but no fewer
#: than the last figure: a graph is planned at its first calls, and its program becomes a Python function when it ran
#: a few times
CALLS_BEFORE, SECONDS_BEFORE, LEAST_BEFORE = 40, 10, 20
#: How far answers may be from the loop over rows, of the largest entry
TOLERANCES = {"float64": 1e-8, "float32": 2e-3}
#: Small functions: so many recorded nodes and inputs at most, and their goal
NODES, INPUTS, SMALL = 20, 10, 0.6


@dataclass
class Row:
    """What was measured of one call, in seconds."""

    name: str
    field: str
    dtype: str
    order: int
    nodes: int
    rows: int
    columns: int
    ours: float
    best: str
    theirs: dict[str, float]
    first: float
    failed: dict[str, str]

    @property
    def ratio(self) -> float:
        """Ours over the best of theirs."""
        return self.ours / self.theirs[self.best]

    @property
    def small(self) -> bool:
        """Whether few nodes and few inputs take part."""
        return self.nodes <= NODES and self.columns <= INPUTS

    def line(self) -> str:
        """The row of the table."""
        shape, theirs = f"{self.rows}x{self.columns}", f"{self.best} {self.theirs[self.best] * 1e6:9.0f}"
        return (
            f"{self.name:38} {self.nodes:6} {shape:>11} {self.ours * 1e6:10.0f} {theirs:>32}"
            f" {self.ratio:6.2f} {self.first * 1e3:10.1f}"
        )


def attached(x: Any) -> Any:
    """The input as leaves that ask for a gradient."""
    return tree(lambda each: each.detach().clone().requires_grad_(), x)


def recorded(out: Tensor) -> int:
    """How many nodes autograd recorded for an output."""
    seen, left = set(), [out.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [each for each, _ in node.next_functions]
    return len(seen)


def loop(f: Callable[[Any], Tensor], x: Any, order: int) -> list[Any]:
    """Each leaf's Jacobian (or rows of the Hessian) by a row of autograd.grad at a time."""
    x = attached(x)
    out, parts = f(x), leaves(x)
    given = (
        torch.autograd.grad(out, parts, create_graph=True, materialize_grads=True) if order == 2 else [out]
    )
    found = []
    for one in given:
        rows = [grads(each, parts) for each in one.reshape(-1)]
        found += [torch.stack(column) for column in zip(*rows, strict=True)]
    return dense_numbers(dict(enumerate(found)))  # type: ignore[return-value]


def grads(out: Tensor, parts: list[Tensor]) -> tuple[Tensor, ...]:
    """One row; zeros where nothing was recorded."""
    if not out.requires_grad:
        return tuple(torch.zeros_like(part) for part in parts)
    return torch.autograd.grad(out, parts, retain_graph=True, materialize_grads=True)


def ways(
    call: Call, f: Callable[[Any], Tensor], x: Any, rows: int, columns: int
) -> dict[str, Callable[[], Any]]:
    """Ours, and torch.func's ways that make sense, by their names."""
    func = torch.func
    if call.order == 2:
        transforms = {
            "ours": torchjac.hessian(f),
            "hessian": func.hessian(f),
            "jacrev(jacrev)": func.jacrev(func.jacrev(f)),
            "jacrev(grad)": func.jacrev(func.grad(f)),
        }
    else:
        transforms = {"ours": torchjac.jacrev(f), "jacrev": func.jacrev(f)}
        for size in CHUNKS:
            if size < rows and (size > 1 or rows <= MOST_ALONE):
                transforms[f"jacrev, chunk {size}"] = func.jacrev(f, chunk_size=size)
        if columns <= WIDER * rows + FEW:
            transforms["jacfwd"] = func.jacfwd(f)
    return {name: lambda each=each: each(x) for name, each in transforms.items()}


def measure(call: Call, dtype: str, seconds: float, clock: str, limit: float) -> Row:
    """Check that all agree, and time them."""
    torch.manual_seed(0)
    f, x = call.make()
    out = f(attached(x))
    columns = sum(leaf.numel() for leaf in leaves(x))
    rows = columns if call.order == 2 else out.numel()
    oracle = loop(f, x, call.order)
    calls, once, failed = ways(call, f, x, rows, columns), {}, {}
    for name, each in list(calls.items()):
        answers: list[Any] = []
        try:
            with limited(limit):
                once[name] = turn(lambda each=each, answers=answers: answers.append(each()), clock=clock)
        except (TooSlowError, RuntimeError, NotImplementedError) as error:
            failed[name] = str(error).split("\n")[0] or "too slow"
            apart = 0.0
        else:
            apart = difference(dense_numbers(answers[0]), oracle)
            if apart > TOLERANCES[dtype]:
                failed[name] = f"differs by {apart:.1e}"
        if name in failed:
            if name == "ours":
                raise AssertionError(f"{call.name}, {dtype}: ours: {failed[name]}")
            del calls[name]
    again = {name: turn(calls[name], clock=clock) for name in calls if name != "ours"}
    fastest = min(again.values())
    going = {name: each for name, each in calls.items() if name == "ours" or again[name] <= FAR * fastest}
    fitting = int(SECONDS_BEFORE * seconds / once["ours"])
    for _ in range(min(CALLS_BEFORE, max(LEAST_BEFORE, fitting))):
        calls["ours"]()
    timed = {name: found[0] for name, found in alternate(going, seconds, clock).items() if found}
    ours = timed.pop("ours")
    best = min(timed, key=timed.__getitem__)
    return Row(
        call.name,
        call.field,
        dtype,
        call.order,
        recorded(out),
        rows,
        columns,
        ours,
        best,
        timed,
        once["ours"],
        failed,
    )
