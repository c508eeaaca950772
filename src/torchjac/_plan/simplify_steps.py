"""Fewer steps for what was recorded: without those that give the tensor they read, or a shape it has on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .recorder import Recorder
from .registers import ProgramStep, Register
from .steps import Whole, call, called

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
    kept = []
    for step in steps:
        function, reads, own, writes, _ = step
        if same:
            writes = None if writes is None else same.get(writes, writes)
            reads = tuple([same.get(at, at) for at in reads])
            step = step._replace(reads=reads, writes=writes)
        if function in _SAME and own not in seen and _gives_what_it_reads(function, reads, own, registers):
            same[own] = reads[0]
            step = step._replace(reads=(), kept=False)
        elif function in _SHAPES and type(registers[reads[1]].value) is not torch.dtype:
            memories = {registers[at].memory for at in (own, reads[0])}
            if written.keys().isdisjoint(memories):  # what is copied does not change before the next shape
                shaped[own] = shaped.get(reads[0], reads[0])
                if shaped[own] != reads[0]:
                    step = step._replace(function=Tensor.reshape, reads=(shaped[own], *reads[1:]))
        kept.append(step)
    return kept


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
