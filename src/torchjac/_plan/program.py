"""A program: a straight line of calls on registers, made of what a recorder noted.

What is the same at each run is computed once: constants, and what follows from index tables whose entries were looked
at. Steps that nothing reads are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import local
from typing import Any

from torch import Tensor

from .number import Number
from .price import PATIENCE, price
from .python_source import spell
from .recorder import Recorder
from .registers import ProgramStep, Register
from .simplify_steps import simplified
from .steps import Equal, Load, SameMemory, Tree, Whole, build, called


class _Runs(local):
    """The number of programs that a thread has run."""

    count: int = 0


_runs = _Runs()


def runs_made() -> int:
    """Return how many programs this thread has run."""
    return _runs.count


@dataclass(slots=True, eq=False)
class Program:
    """Steps on registers, of which some begin with values; and how the result is made of the registers.

    ``bytes`` is what the tensors take that a program holds, ``price`` what a run takes, and ``last`` the place of
    the last object from outside that is read. Once it was run a few times, its steps are written as a Python
    function, which spares the interpretation of each.
    """

    registers: list[Any]
    origins: int
    last: int
    steps: list[ProgramStep]
    result: Tree
    bytes: int
    price: float
    runs: int = 0
    compiled: Callable[[Sequence[Any]], Any] | None = None

    def run(self, origins: Sequence[Any]) -> Any:
        """Return the result for other objects from outside.

        Raises:
            MismatchError: where a guard does not hold.
        """
        self.runs += 1
        _runs.count += 1
        if self.compiled is not None:
            return self.compiled(origins)
        if self.runs == RUNS:
            self.compiled = _compiled(self)
        values = self.registers.copy()
        values[: self.origins] = origins
        for step in self.steps:
            values[step.register] = step.function(*[values[at] for at in step.reads])
        return self.result(values)


#: The runs after which a program is compiled: each saves about a sixteenth of the time that this takes
RUNS = round(16 * PATIENCE)


def _compiled(program: Program) -> Callable[[Sequence[Any]], Any]:
    """Return a function of the objects from outside that does what a program does."""
    made = set(range(program.origins)) | {step.register for step in program.steps}
    names: dict[str, Any] = {}

    def read(at: int) -> str:
        if at in made:
            return f"v{at}"
        value = program.registers[at]
        if value is None or type(value) in (int, bool, str):
            return repr(value)
        names[f"c{at}"] = value
        return f"c{at}"

    lines = ["def run(origins):", f"    ({' '.join(f'v{at},' for at in range(program.origins))}) = origins"]
    for number, (function, reads, register, *_) in enumerate(program.steps):
        lines += spell(function, f"v{register}", [read(at) for at in reads], str(number), names)
    lines.append(f"    return {program.result.spell(read, names)}")
    exec("\n".join(lines), names)
    found: Callable[[Sequence[Any]], Any] = names["run"]
    return found


def program(found: Recorder, result: Any) -> Program | None:
    """Return the program of a finished recording whose result is a tree of tensors, None where it failed."""
    outputs: list[int] = []
    constants: list[int] = []

    def slot(leaf: Any) -> int | None:
        if not isinstance(leaf, (Tensor, Number)):
            constants.append(getattr(leaf, "nbytes", 0))
            return None
        outputs.append(found.place(leaf))
        return outputs[-1]

    made = build(result, slot)
    if found.failed is not None:
        return None
    registers, steps = found.registers, simplified(found, _guarded(found), outputs)
    fixed = _fixed(found, outputs)
    live = _live(registers, steps, outputs, fixed)
    kept = [step for number, step in enumerate(steps) if number in live]
    sources = {registers[step.register].memory for step in steps if isinstance(step.function, (Load, Equal))}
    values: list[Any] = [None] * len(registers)
    held = sum(constants)
    read = {at for step in kept for at in step.reads} | set(outputs)
    for at in read:
        register = registers[at]
        if at in fixed:
            value = register.value
            if isinstance(value, Tensor):
                value = value.clone() if register.memory in sources else value
                held += value.numel() * value.element_size()
            values[at] = value
        elif register.step < 0 and at >= len(found.origins):
            values[at] = register.value
    held += sum(step.function.table.nbytes for step in kept if isinstance(step.function, Equal))
    count, costs = len(found.origins), price(kept, registers)
    last = max([at for at in read if at < count], default=-1)
    return Program(values, count, last, _shared(kept, set(outputs)), made, held, costs)


def _shared(steps: Sequence[ProgramStep], outputs: set[int]) -> list[ProgramStep]:
    """Return the steps with the registers of what is read no more given to later results: its memory is free again.

    Memory that a run holds to its end is new memory in the next run, which takes longer to get than to fill.
    """
    last = {at: number for number, step in enumerate(steps) for at in step.reads}
    place: dict[int, int] = {}
    free: list[int] = []
    shared = []
    for number, (function, reads, own, writes, kept) in enumerate(steps):
        given = [place.get(at, at) for at in reads]
        free += [place.pop(at) for at in reads if last[at] == number and at in place]
        to = own
        if own not in outputs:
            to = free.pop() if free else own
            if own in last:
                place[own] = to
            else:
                free.append(to)
        shared.append(ProgramStep(function, tuple(given), to, writes, kept))
    return shared


def _guarded(found: Recorder) -> list[ProgramStep]:
    """Return the steps; loads of index tables that were looked at compare their entries, wherever they are read."""
    steps = list(found.steps)
    tables = {at: found.registers[at].value.clone() for at in found.guarded}
    for at, table in tables.items():
        number = found.registers[at].step
        steps[number] = steps[number]._replace(function=Equal(steps[number].function, table))
    for number, (function, reads, *_) in enumerate(steps):
        if type(function) is SameMemory and reads[1] in tables:
            equal = Equal(function.load, tables[reads[1]])
            steps[number] = steps[number]._replace(function=equal, reads=reads[:1])
    return steps


def _fixed(found: Recorder, outputs: Sequence[int]) -> set[int]:
    """Return the registers that hold the same at each run and need not be computed again.

    Not those whose memory is given away, to a caller or to code from outside, or written into by what varies, or read
    by it before all is written.
    """
    registers, steps, guarded = found.registers, found.steps, found.guarded
    same = {
        at
        for at, register in enumerate(registers)
        if register.tables is not None and register.tables <= guarded
    }
    given = {registers[at].memory for at in outputs}
    last_write: dict[int, int] = {}
    for number, step in enumerate(steps):
        if step.writes is not None:
            memory = registers[step.writes].memory
            last_write[memory] = number
            written = found.written[memory]
            if written is None or not written <= guarded:
                given.add(memory)
    for number, step in enumerate(steps):
        if type(called(step.function)) is Whole:
            given.update([registers[at].memory for at in step.reads])
        elif last_write and not same.issuperset(step.reads):
            memories = [registers[at].memory for at in step.reads]
            given.update([memory for memory in memories if last_write.get(memory, -1) > number])
    given.discard(0)
    return {at for at in same if registers[at].memory not in given}


def _live(
    registers: Sequence[Register], steps: Sequence[ProgramStep], outputs: Sequence[int], fixed: set[int]
) -> set[int]:
    """Return the numbers of the steps that are needed."""
    needed = set(outputs)
    memories = {registers[at].memory for at in outputs}
    is_written = any(step.writes is not None for step in steps)
    live: set[int] = set()
    for number in range(len(steps) - 1, -1, -1):
        _, reads, register, writes, kept = steps[number]
        if not kept:
            if register in fixed and (writes is None or writes in fixed):
                continue
            if register not in needed and (writes is None or registers[writes].memory not in memories):
                continue
        live.add(number)
        needed.update(reads)
        if is_written:
            memories.update([registers[at].memory for at in reads])
    return live
