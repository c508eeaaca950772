"""The steps of a walk: for each node how its local Jacobian was found, what was carried, and what was lost."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import NamedTuple

from .._blocks.block import Block, is_dense, stored
from .._capture.tape import Node
from .costs import Costs


class StructureLostWarning(UserWarning):
    """An op without a rule made a Jacobian dense; see `warn_structure_lost`."""


_warns = False


def warn_structure_lost(enabled: bool = True) -> None:
    """Turn `StructureLostWarning` on or off; it is off unless turned on.

    Example:
        >>> import torchjac
        >>> torchjac.warn_structure_lost()        # from now on a lost structure warns, once for each op's name
        >>> torchjac.warn_structure_lost(False)
    """
    global _warns
    _warns = enabled


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a walk.

    Attributes:
        name: the node's name, as autograd spells it.
        kind: "explicit" (a rule gave its local Jacobian), "independent" (a rule named the dims that pass and
            the node was called on seeds for the others) or "opaque" (called on dense seeds).
        blocks: how many blocks arrived at the node.
        stored: how many numbers they held.
        calls: how often the node's backward formula was called (a batched call counts once).
        lost: why structure was lost here; empty where it was kept.
        unbatched: why the rows of a batch went through the node one by one; empty where they went at once.
        shape: of the op's output, the first where it has several.
        module: the innermost module that recorded the op, where `explain` saw one.
        moves: whether the op only moves entries, as a view does, where `explain` was asked.
    """

    name: str
    kind: str
    blocks: int
    stored: int
    calls: int
    lost: str
    unbatched: str = ""
    shape: tuple[int, ...] = ()
    module: str = field(default="", compare=False)
    moves: bool = field(default=False, compare=False)


#: How a notebook's table sets a row off, on light and on dark pages, and the name of a module.
MARKED = " style='background:#e07a1f40'"
LEFT = " style='text-align:left'"

#: A report with more steps than this folds those in a row that only move entries.
FOLDED = 20

#: The heads of the table's columns, and those whose cells stand to the left.
HEADS: tuple[str, ...] = ("node", "shape", "kind", "blocks", "stored", "calls", "structure lost")
ALIGNED_LEFT = (0, 1, 2, 6)


class Line(NamedTuple):
    """A line of a report: its module, whether this one begins here, its cells, and whether structure was lost."""

    module: str
    begins: bool
    cells: tuple[str, ...]
    lost: bool


@dataclass
class Report:
    """The steps of a walk, in the order in which it went; printed as a table.

    Attributes:
        steps: from the outputs down to the inputs; in forward order from the inputs up, each step with what left
            the node; around a cut first those above it.
        costs: of `explain`, the candidates for the dense Jacobian, else None.
        answers: how systems and products with the Jacobian were done, a line for each.
    """

    steps: list[Step] = field(default_factory=list)
    costs: Costs | None = None
    answers: tuple[str, ...] = ()
    #: Of a node, the module that recorded it and whether it only moves entries.
    _details: Callable[[Node], tuple[str, bool]] | None = field(default=None, repr=False, compare=False)

    @property
    def lost(self) -> list[Step]:
        """The steps at which structure was lost."""
        return [step for step in self.steps if step.lost]

    @property
    def summary(self) -> str:
        """One line: the nodes by kind, how often they were called, what was carried, where structure was lost."""
        steps = self.steps
        kinds = Counter(step.kind for step in steps)
        told = ", ".join(
            f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])
        )
        calls, most = sum(step.calls for step in steps), max((step.stored for step in steps), default=0)
        lost = f"at {len(self.lost):,} of them" if self.lost else "nowhere"
        return (
            f"{_counted(len(steps), 'node')}{f' ({told})' if told else ''}, {_counted(calls, 'call')}, "
            f"at most {most:,} numbers carried; structure lost {lost}"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the same, with the steps at which structure was lost set off."""
        body = []
        for module, begins, cells, lost in table(self.steps):
            if begins:
                body.append(f"<tr><th colspan='{len(HEADS)}'{LEFT}>{escape(module)}</th></tr>")
            row = "".join(
                f"<td{LEFT if column in ALIGNED_LEFT else ''}>{escape(cell)}</td>"
                for column, cell in enumerate(cells)
            )
            body.append(f"<tr{MARKED if lost else ''}>{row}</tr>")
        heads = "".join(f"<th>{cell}</th>" for cell in HEADS)
        below = "".join(f"<pre>{escape(text)}</pre>" for text in self._below())
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>{below}"

    def __str__(self) -> str:
        """Return a line for each step, below the name of its module where one is known, and a summary."""
        rows = [HEADS]
        for module, begins, (name, *rest), _ in table(self.steps):
            if begins:
                rows.append((module,))
            rows.append((f"  {name}" if module else name, *rest))
        widths = [max(len(row[column]) for row in rows if len(row) > 1) for column in range(len(HEADS))]
        lines = [
            "  ".join(
                cell.ljust(width) if column in ALIGNED_LEFT else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=False))
            ).rstrip()
            for row in rows
        ]
        return "\n\n".join(["\n".join(lines), *self._below()])

    def _below(self) -> list[str]:
        """Return what stands below the table, its parts by themselves."""
        costs = self.costs
        measured = costs is not None and any(cost.measured is not None for cost in costs.candidates)
        parts = [str(costs)] if measured else []
        if self.answers:
            parts.append("\n".join(self.answers))
        last = [self.summary] if costs is None else [self.summary, costs.summary]
        return [*parts, "\n".join(last)]


def table(steps: Sequence[Step]) -> list[Line]:
    """Return the lines of the table below its heads `HEADS`; long ones fold steps that only move entries."""
    folds = len(steps) > FOLDED
    groups = groupby(steps, lambda step: (step.module, folds and step.moves and not _remark(step)))
    lines: list[Line] = []
    for (module, folded), group in groups:
        inside = list(group)
        for row in [inside] if folded else [[step] for step in inside]:
            begins = bool(module) and (not lines or lines[-1].module != module)
            lines.append(Line(module, begins, _cells(row), bool(row[0].lost)))
    return lines


def _cells(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the cells of a line, of several steps in a row that only move entries as of the first."""
    step = steps[0]
    name = step.name if len(steps) == 1 else f"{step.name} and {len(steps) - 1} more that move entries"
    shape = str(step.shape)
    return name, shape, step.kind, str(step.blocks), f"{step.stored:,}", str(step.calls), _remark(step)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _remark(step: Step) -> str:
    """Return what a table says in its last column."""
    return "; ".join(filter(None, (step.lost, step.unbatched and f"row by row, as {step.unbatched}")))


class PendingBlocks(NamedTuple):
    """The blocks of one output of the function that wait at one output of a node."""

    slot: int
    output: int
    out_shape: Sequence[int]
    wrt_shape: Sequence[int]
    blocks: list[Block]

    def is_rows(self) -> bool:
        """Return whether they are nothing but dense rows."""
        return len(self.blocks) == 1 and is_dense(self.blocks[0], (*self.out_shape, *self.wrt_shape))


def warns() -> bool:
    """Return whether a walk warns where it loses structure."""
    return _warns


def note_step(
    report: Report | None, node: Node, arrived: Sequence[PendingBlocks], carried: Sequence[PendingBlocks]
) -> None:
    """Add a node to the report, and warn where it loses structure if that is asked for.

    ``arrived`` are the blocks as they came, ``carried`` the same merged.
    """
    if report is None and not _warns:
        return
    lost = _why_lost(node, arrived, carried)
    if lost and _warns:
        warnings.warn(f"{node.name}: {lost}", StructureLostWarning, stacklevel=2)
    if report is not None:
        flat = [block for lot in carried for block in lot.blocks]
        held = sum(map(stored, flat))
        module, moves = ("", False) if report._details is None else report._details(node)
        report.steps.append(
            Step(
                node.name,
                node.note,
                len(flat),
                held,
                node.calls,
                lost,
                node.unbatched,
                node.shape,
                module,
                moves,
            )
        )


def _why_lost(node: Node, arrived: Sequence[PendingBlocks], carried: Sequence[PendingBlocks]) -> str:
    for before, after in zip(arrived, carried, strict=True):
        if (
            len(before.blocks) > 1
            and after.is_rows()
            and sum(map(stored, before.blocks)) > stored(after.blocks[0])
        ):
            return f"{len(before.blocks)} blocks held more numbers than the dense Jacobian"
    if node.note == "opaque" and not all(lot.is_rows() for lot in carried):
        return "no rule for this op: called on dense seeds"
    return ""
