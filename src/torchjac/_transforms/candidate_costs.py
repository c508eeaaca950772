"""The candidates for the dense Jacobian of a recorded call, each recorded as a program, priced and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from statistics import median
from time import perf_counter
from typing import Any

from .._accumulate.candidates import estimated, first_choice
from .._accumulate.costs import Cost, Costs
from .._accumulate.planned import may_plan, recorded
from .._plan.listing import listing
from .._plan.price import NUMBER
from .call_function import Recorded
from .dense import dense_answers, is_mixed

#: A candidate that is estimated to take more microseconds, with the writing of the answer, is not recorded, or measured
RECORDED, MEASURED = 5e3, 1e5

#: How often each is measured, after one run that is not
RUNS = 20


def candidate_costs(part: Recorded, measure: bool) -> Costs:
    """Return what the candidates cost; one that is estimated to take long is not tried."""
    captured, shapes, mixed = part.captured, part.shapes, is_mixed(part)
    origins = [*captured.graph.nodes, *captured.outputs]
    entries = sum(map(prod, shapes)) * sum([tensor.numel() for tensor in part.inputs])
    most = (MEASURED if measure else RECORDED) - NUMBER * entries
    costs, programs = [], {}
    for candidate in estimated(captured.tape, shapes, mixed):
        made, measured = None, None
        if may_plan(captured) and candidate.each <= most:

            def compute(candidate: Any = candidate) -> Any:
                return dense_answers(part, None, candidate=candidate)

            _, made = recorded(origins, compute)
            if made is not None:
                programs[candidate.name] = made
            if measure:
                measured = _measured(compute if made is None else partial(made.run, origins))
        price, steps = (None, 0) if made is None else (made.price, len(made.steps))
        costs.append(Cost(candidate.name, candidate.each, price, steps, measured))
    chosen = first_choice(captured.tape, shapes, mixed).name
    chosen = min(programs, key=lambda way: programs[way].price, default=chosen)
    starts = len(captured.graph.starts)
    names = [f"input{number}" for number in range(starts)]
    names += _distinct([fn.name() for fn in captured.graph.nodes[starts:]])
    names += [f"output{number}" for number in range(len(captured.outputs))]
    return Costs(tuple(costs), chosen, listing(programs[chosen], names) if chosen in programs else "")


def _measured(run: Callable[[], Any]) -> float:
    """Return the median of some runs, in microseconds."""
    run()
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return 1e6 * median(times)


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of which each stands once; those that stood more often are numbered."""
    often, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name}#{seen[name]}" if often[name] > 1 else name)
    return found
