"""The costs of the candidates for a dense Jacobian: estimated, by the steps of their programs, and measured."""

from __future__ import annotations

from dataclasses import dataclass, field

#: A program of more steps is not printed with a report
PRINTED = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """A candidate for a dense Jacobian, with its costs in microseconds.

    Attributes:
        candidate: "rows" of the identity down through the graph, its "columns" up through it, or blocks by structure in
            "reverse" or "forward" order, or from both sides of a "cut".
        estimated: what each call is estimated to take, from shapes.
        price: what the steps of its program take by the fitted figures; None where none was recorded.
        steps: how many steps that are.
        measured: the median of some runs, where `explain` was asked to measure.
    """

    candidate: str
    estimated: float
    price: float | None = None
    steps: int = 0
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """The candidates for the dense Jacobian of a function, and the one that is taken.

    Attributes:
        candidates: a `Cost` for each.
        chosen: the candidate that `jacrev` takes once it has compared them: the one whose program has the lowest price.
        program: its steps, a line of Python each, of nodes of the graph by their names; ``v0``, … are what steps give.
    """

    candidates: tuple[Cost, ...]
    chosen: str
    program: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return a line for each candidate, with a star at the chosen one, and a short program."""
        rows = [("dense by", "estimated", "program", "steps", "measured")]
        for cost in self.candidates:
            name = f"{cost.candidate} *" if cost.candidate == self.chosen else cost.candidate
            steps = f"{cost.steps:,}" if cost.price is not None else ""
            rows.append((name, _time(cost.estimated), _time(cost.price), steps, _time(cost.measured)))
        shown = [column for column in range(5) if any(row[column] for row in rows[1:])]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(
                row[column].rjust(widths[column]) if column else row[column].ljust(widths[column])
                for column in shown
            ).rstrip()
            for row in rows
        ]
        if not self.program:
            return "\n".join(lines)
        program = self.program.split("\n")
        told = program if len(program) <= PRINTED else [f"a program of {len(program):,} lines: costs.program"]
        return "\n".join([*lines, "", *told])

    @property
    def summary(self) -> str:
        """One line: the chosen candidate, the steps of its program, and what the others were."""
        chosen = next(cost for cost in self.candidates if cost.candidate == self.chosen)
        others = ", ".join(cost.candidate for cost in self.candidates if cost is not chosen)
        program = "" if chosen.price is None else f", a program of {chosen.steps:,} steps"
        return f"dense: by {self.chosen}{program}{f' (not by {others})' if others else ''}"


def _time(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:,.1f} µs"
