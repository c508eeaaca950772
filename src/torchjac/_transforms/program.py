"""A captured program: what a call did to tensors, recorded once without values, compiled, and run on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.fx import GraphModule

from .._answers.frame import kept_in_parts
from .._answers.rebuild import Build, Rebuildable, take_apart
from .._capture.assumed import Assumed, still_holds
from .._capture.constant_folding import Constants
from .._torch import FakeTensorMode
from .backend import Decompositions, Run, compile_graph
from .capture_watch import Observer, UnwatchedConstants, ValuesLeave
from .graph_constants import take_out_numbers
from .op_recording import Recording, is_random, record_ops
from .signature import Call, put_back
from .traced_ops import ManySizes

#: Gives what runs a graph, from it and from inputs like its own.
Compile: TypeAlias = Callable[[GraphModule, list[Tensor]], Run]

#: A call from its tensors to those of its answer.
Flat: TypeAlias = Callable[[list[Tensor], Constants], list[Tensor]]


class Pull:
    """The way back through a program: cotangents of its outputs to gradients of its inputs.

    It runs the program's ops again instead of keeping what they made. It is recorded with the program, and compiled
    where it is first needed. ``outputs`` are the numbers of the differentiable outputs, ``sources`` those of the
    inputs that it gives gradients of.
    """

    def __init__(self, recording: Recording, outputs: list[int], sources: list[int], backend: Any) -> None:
        self.outputs, self.sources = outputs, sources
        self._recording, self._backend = recording, backend
        self._run: Run | None = None

    def __call__(self, inputs: Sequence[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
        """Return the gradients of the sources."""
        if self._run is None:
            self._run = compile_graph(self._recording.graph, self._recording.example, self._backend)
        return list(self._run([*inputs, *cotangents, *self._recording.captured]))


class NoPull(NamedTuple):
    """A backward pass that raises, where PyTorch has none, with the reason."""

    outputs: list[int]
    sources: list[int]
    reason: Exception

    def __call__(self, inputs: Sequence[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
        """Raise: the answer was asked for its gradient."""
        raise RuntimeError(f"compile: the answer has no gradient: {self.reason}") from self.reason


class CompiledProgram(NamedTuple):
    """A compiled program.

    ``run`` gives the outputs from the call's tensors and then those ``captured``, which are kept by reference;
    ``build`` makes the answer of them; ``assumed`` are captured tensors whose values are part of the program; ``pull``
    is the way back where the answer is differentiable, and ``silent`` tells that no tensor asks for gradients.
    """

    run: Run
    captured: list[Tensor]
    assumed: list[Assumed]
    build: Build
    pull: Pull | NoPull | None
    silent: bool

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Return the answer of a call with these tensors."""
        if self.pull is not None:
            given = _Differentiable.apply(self, len(tensors), *tensors, *self.captured)  # type: ignore[no-untyped-call]
            return self.build(given)
        if self.silent or not torch.is_grad_enabled():
            return self.build(self.run(tensors + self.captured))
        with torch.no_grad():
            return self.build(self.run(tensors + self.captured))

    def holds(self) -> bool:
        """Return whether captured tensors have the values that were assumed."""
        return all(map(still_holds, self.assumed))


class Trace(NamedTuple):
    """A recorded call: the graph, the answer taken apart, captured tensors whose values are part of it.

    ``flat`` is what was recorded.
    """

    forward: Recording
    apart: Rebuildable
    assumed: list[Assumed]
    flat: Flat


def flattened(func: Callable[..., Any], call: Call) -> tuple[Flat, list[Any]]:
    """Return a call of a function as one from tensors to tensors, and a list that it fills.

    The list holds how the last answer was taken apart, and what was assumed.
    """
    found: list[Any] = []

    def flat(tensors: list[Tensor], constants: Constants) -> list[Tensor]:
        with kept_in_parts():
            args, kwargs = put_back(call, tensors)
            apart = take_apart(func(*args, **kwargs), constants.holds)
        found[:] = apart, list(constants.assumed.values())
        return [constants.now(tensor) for tensor in apart.tensors]

    return flat, found


def trace(
    func: Callable[..., Any],
    call: Call,
    observer: Observer,
    mode: FakeTensorMode | None = None,
    decompositions: Decompositions = None,
) -> Trace:
    """Record a call of a function, which the observer watches, in a mode.

    Raises:
        RuntimeError: where the function looks at values of tensors.
    """
    flat, found = flattened(func, call)

    def ahead(tensors: list[Tensor]) -> list[Tensor]:
        with UnwatchedConstants() as constants, ValuesLeave(constants), observer:
            return flat(tensors, constants)

    with observer.interrupts:
        forward = record_ops(ahead, call.tensors, mode, decompositions)
    apart, assumed = found
    return Trace(forward, apart, assumed, flat)


def capture(
    func: Callable[..., Any],
    call: Call,
    observer: Observer,
    backend: Any,
    dynamic: bool,
    decompositions: Decompositions = None,
) -> Callable[[Compile], CompiledProgram]:
    """Record a call of a function, which the observer watches, and return what makes a program of a compiler.

    A ``dynamic`` recording is one for many sizes. What is decomposed is recorded as the ops that it is made of.

    Raises:
        RuntimeError: where the function looks at values of tensors, or writes into tensors that are not its own
            while gradients are asked for.
    """
    forward, apart, assumed, flat = trace(
        func, call, observer, ManySizes() if dynamic else None, decompositions
    )
    outputs = [number for number, tensor in enumerate(apart.tensors) if tensor.requires_grad]
    if outputs:
        with observer.interrupts:
            pull = _pull(flat, call.tensors, forward, outputs, backend, observer, decompositions)
        at: list[int | float] = list(range(len(apart.tensors)))
    else:
        pull, at = None, take_out_numbers(forward.graph, forward.outputs, apart.numbers)
    captured = forward.captured
    observer.reads.reach(captured)
    return lambda compile_: CompiledProgram(
        run=compile_(forward.graph, forward.example),
        captured=captured,
        assumed=assumed,
        build=apart.plan(at),
        pull=pull,
        silent=not any(tensor.requires_grad for tensor in (*call.tensors, *captured)),
    )


def _pull(
    flat: Flat,
    tensors: list[Tensor],
    forward: Recording,
    outputs: list[int],
    backend: Any,
    observer: Observer,
    decompositions: Decompositions,
) -> Pull | NoPull:
    if forward.writes:
        raise RuntimeError(
            "compile: the function writes into tensors that are not its own (BatchNorm in training mode does), and "
            "its answer is differentiable, for which it would run again and write twice; call it under "
            "torch.no_grad(), or not compiled"
        )
    if is_random(forward.graph):
        why = "it draws random numbers, and running it again for its gradient would draw others"
        return NoPull(outputs, [], RuntimeError(why))
    sources: list[int] = []

    def back(given: list[Tensor]) -> list[Tensor]:
        inputs = given[: len(tensors)]
        known = [*inputs, *forward.captured]
        asked = [number for number, tensor in enumerate(known) if tensor.requires_grad]
        # Over the way back too: its formulas read captured tensors as they are.
        with UnwatchedConstants() as constants, ValuesLeave(constants), observer:
            results = flat(inputs, constants)
            try:
                grads = torch.autograd.grad(
                    [results[number] for number in outputs],
                    [known[number] for number in asked],
                    given[len(tensors) :],
                    allow_unused=True,
                )
            except RuntimeError as error:
                raise _NoWayBackError(error) from error
        sources[:] = [number for number, grad in zip(asked, grads, strict=True) if grad is not None]
        return [grad for grad in grads if grad is not None]

    cotangents = [forward.outputs[number].detach() for number in outputs]
    try:
        return Pull(
            record_ops(back, [*tensors, *cotangents], None, decompositions), outputs, sources, backend
        )
    except _NoWayBackError as error:
        return NoPull(outputs, sources, error.reason)


class _NoWayBackError(Exception):
    """A formula of the way back is missing."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _Differentiable(torch.autograd.Function):
    """A program whose answer can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, program: CompiledProgram, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = tuple(program.run(list(tensors)))
        ctx.pull, ctx.count = program.pull, count
        ctx.save_for_backward(*tensors)
        ctx.shapes = [(results[number].shape, results[number].stride()) for number in ctx.pull.outputs]
        ctx.mark_non_differentiable(*[r for k, r in enumerate(results) if k not in ctx.pull.outputs])
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        # The code was compiled for cotangents that lie in memory as the outputs do.
        wanted = [
            torch.empty_strided(shape, stride, dtype=cotangent.dtype, device=cotangent.device).copy_(
                cotangent
            )
            for (shape, stride), cotangent in zip(
                ctx.shapes, [cotangents[number] for number in ctx.pull.outputs], strict=True
            )
        ]
        grads: list[Tensor | None] = [None] * len(saved)
        for number, grad in zip(ctx.pull.sources, ctx.pull(saved[: ctx.count], wanted), strict=True):
            grads[number] = grad
        return None, None, *grads
