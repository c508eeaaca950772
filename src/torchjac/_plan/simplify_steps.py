"""Fewer steps for what was recorded: without those that give the tensor they read, or a shape it has on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .recorder import Recorder
from .registers import ProgramStep, Register
from .steps import Into, Whole, call, called

#: Functions that give a view of a tensor, or a copy where there is none, of numbers alone
_VIEWS = frozenset((Tensor.reshape, Tensor.permute, Tensor.narrow, Tensor.select, Tensor.expand))

#: Functions of tensors that can write their result into one
_INTO: dict[Any, Callable[..., Tensor]] = {
    method: function
    for function in (torch.mul, torch.add, torch.sub, torch.neg)
    for method in (function, getattr(Tensor, function.__name__))
}

#: Steps that give the numbers of a tensor, in their order, another shape
_SHAPES = frozenset((Tensor.reshape, Tensor.view))

#: Steps that may give the tensor that they read
_SAME = frozenset((Tensor.detach, Tensor.conj, Tensor.permute))


def simplified(found: Recorder, steps: Sequence[ProgramStep], outputs: Sequence[int]) -> list[ProgramStep]:
    """Return the steps, each in its place, with reads that make others needless.

    Not where a caller, or code from outside, sees the result.
    """
    registers, written = found.registers, found.written
    seen = set(outputs).union(*[step.reads for step in steps if _asks(step.function)])
    same: dict[int, int] = {}
    shaped: dict[int, int] = {}
    views: dict[Any, int] = {}
    kept = []
    for step in steps:
        function, reads, own, writes, _ = step
        if same:
            writes = None if writes is None else same.get(writes, writes)
            reads = tuple([same.get(at, at) for at in reads])
            step = step._replace(reads=reads, writes=writes)
        view = _view(function, reads, own, registers, written)
        if function in _SAME and own not in seen and _gives_what_it_reads(function, reads, own, registers):
            same[own] = reads[0]
            step = step._replace(reads=(), kept=False)
        elif view in views and own not in seen:
            same[own] = views[view]
            step = step._replace(reads=(), kept=False)
        elif function in _SHAPES and type(registers[reads[1]].value) is not torch.dtype:
            memories = {registers[at].memory for at in (own, reads[0])}
            if written.keys().isdisjoint(memories):  # what is copied does not change before the next shape
                shaped[own] = shaped.get(reads[0], reads[0])
                if shaped[own] != reads[0]:
                    step = step._replace(function=Tensor.reshape, reads=(shaped[own], *reads[1:]))
        if view is not None:
            views.setdefault(view, own)
        kept.append(step)
    return kept if torch.is_grad_enabled() else _written_at_once(kept, registers, written, set(outputs))


def _view(
    function: Any, reads: Sequence[int], own: int, registers: Sequence[Register], written: Container[int]
) -> Any:
    """Return what tells a view that others may be given too, of memory that stays as it is; None of anything else."""
    if function not in _VIEWS or any(registers[at].memory in written for at in (own, reads[0])):
        return None
    given = [registers[at] for at in reads[1:]]
    if any(each.step >= 0 for each in given):
        return None
    return function, reads[0], *[_frozen(each.value) for each in given]


def _frozen(value: Any) -> Any:
    return (type(value), *value) if isinstance(value, (list, tuple)) else value


def _written_at_once(
    steps: list[ProgramStep], registers: Sequence[Register], written: Container[int], outputs: set[int]
) -> list[ProgramStep]:
    """Return the steps; what is computed only to be copied into a part of a tensor is computed there."""
    readers = Counter(at for step in steps for at in step.reads)
    made = {step.register: step for step in steps}
    found = []
    for step in steps:
        if step.function is Tensor.copy_:
            to, at = step.reads[:2]
            source = made.get(at)
            if source is not None and readers[at] == 1 and at not in outputs:
                function = _INTO.get(source.function) if not isinstance(source.function, partial) else None
                if function and _fits(registers, to, at, source.reads, written):
                    step = step._replace(function=Into(function), reads=(*source.reads, to))
        found.append(step)
    return found


def _fits(
    registers: Sequence[Register], to: int, at: int, reads: Sequence[int], written: Container[int]
) -> bool:
    """Return whether a result is like the part it is copied into, and made of tensors that stay as they are."""
    part, result = registers[to].value, registers[at].value
    given = [registers[read] for read in reads]
    return (
        part.shape == result.shape
        and part.dtype is result.dtype
        and part.device == result.device
        and all(isinstance(each.value, Tensor) and each.memory not in written for each in given)
    )


def _gives_what_it_reads(
    function: Callable[..., Any], reads: Sequence[int], own: int, registers: Sequence[Register]
) -> bool:
    """Return whether a step gives its first argument: a detached tensor is one where no graph is recorded."""
    if function is Tensor.detach:
        return not torch.is_grad_enabled()
    if function is Tensor.conj:
        return not registers[own].value.is_complex()
    dims = [registers[at].value for at in reads[1:]]
    return list(dims if type(dims[0]) is int else dims[0]) == [*range(registers[own].value.dim())]


def _asks(function: Callable[..., Any]) -> bool:
    """Return whether a step calls code that may ask a tensor whether it requires grad."""
    function = called(function)
    return function is call or type(function) is Whole
