"""Running a function for a Jacobian: arguments checked, the tape captured, answers nested like outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._blocks.tracing import inside_functorch, is_tracing, is_transformed
from .._capture.beneath_vmap import Beneath, capture_beneath
from .._capture.capture import Captured, capture
from .._capture.checkpoints import any_made, blocks_kept
from .._capture.constant_folding import constants_computed
from .._capture.detach import detach_keep_tangent
from .._capture.state import Change, normal_mode
from .._capture.vmap_levels import inside_vmaps_only, levels_left
from .._torch import dispatch_mode_count, is_any_autocast_enabled, set_grad_enabled, unwrap_if_dead
from .arguments import (
    check_argnums,
    check_outputs,
    differentiated,
    map_tensors,
    nest,
    put_arguments,
    split_aux,
    unflatten,
)
from .sample_copies import BeforeCall, copies_paid, copies_pay

#: Finds something for each output and input of a recorded call: ``[output][input]``
Find: TypeAlias = Callable[["Recorded"], list[list[Any]]]


class Recorded(NamedTuple):
    """A captured call: the differentiated tensors and the trees that answers take.

    ``beneath`` tells that it was captured beneath vmap, in parts, and ``is_part`` that this is one of them, of whose
    inputs the first dims, as many as ``lead``, tell samples apart. ``outermost`` tells that no Jacobian is taken of the
    answers, though a graph may be recorded.
    """

    captured: Captured
    inputs: list[Tensor]
    in_spec: Any
    out_spec: Any
    aux: Any
    beneath: Beneath | None = None
    is_part: bool = False
    lead: int = 0
    outermost: bool = False

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs."""
        return [tuple(output.shape) for output in self.captured.outputs]

    @property
    def walks_recorded(self) -> bool:
        """True where the walk is recorded: gradients of the answer are asked for, in functorch, and with tangents.

        Some formulas (of linalg.solve, det, silu) go another way without a graph, which is silently wrong under vmap
        and has no derivative in forward mode (torch 2.13).
        """
        return self.captured.records or (self.beneath is None and is_transformed())

    @property
    def is_cut(self) -> bool:
        """True where answers come with a graph that nobody asked for."""
        return not self.captured.records and self.beneath is None and is_transformed()

    def cut(self, answer: Any) -> Any:
        """Return an answer without a graph that nobody asked for, if it is a tensor."""
        return detach_keep_tangent(answer) if self.is_cut and isinstance(answer, Tensor) else answer

    def finish(self, answers: Sequence[Sequence[Any]], has_aux: bool) -> Any:
        """Return the answers ``[output][input]`` as the output tree of input trees, with aux if there is any."""
        if self.is_cut:
            answers = [[self.cut(each) for each in row] for row in answers]
        tree = nest(answers, self.out_spec, self.in_spec)
        if not has_aux:
            return tree
        return tree, map_tensors(unwrap_if_dead if self.captured.records else Tensor.detach, self.aux)


def record(
    what: str,
    func: Callable[..., Any],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Recorded:
    """Call a function so that its graph is kept; ``what`` names the transform in errors."""
    positions = check_argnums(argnums, len(args), what)
    inputs, in_spec = differentiated(args, argnums, positions, what)

    def run(leaves: list[Tensor]) -> tuple[list[Tensor], tuple[Any, Any]]:
        chosen = unflatten(leaves, in_spec)
        result = func(*put_arguments(args, argnums, positions, chosen), **kwargs)
        output, aux = split_aux(result, what) if has_aux else (result, None)
        outputs, out_spec = check_outputs(output, what)
        return outputs, (out_spec, aux)

    if inside_functorch() and inside_vmaps_only() and not is_tracing():
        try:
            paid = copies_paid(func)
            before = BeforeCall((args, kwargs)) if paid is None else None
            captured, beneath = capture_beneath(run, inputs, bool(paid))
            pay = copies_pay(func, captured, beneath, bool(paid))
            if pay and before is not None and before.restored():
                captured, beneath = capture_beneath(run, inputs, True)
            out_spec, aux = captured.extra
            return Recorded(captured, inputs, in_spec, out_spec, aux, beneath)
        except RuntimeError:  # it may be right at a level of its own; if not, the error shows itself again
            pass
    captured = capture(run, inputs)
    return Recorded(captured, inputs, in_spec, *captured.extra)


def found(
    recorded: Recorded, find: Find, inside: Callable[[Beneath, Any, int, int], Any] = Beneath.inside
) -> list[list[Any]]:
    """Return what is found of a recorded call, in the modes in which a tape is walked.

    Beneath vmap it is found part by part; ``inside`` then gives what is seen inside the levels, of an output and an
    input.
    """
    beneath = recorded.beneath
    if beneath is None:
        with walking(recorded):
            return find(recorded)
    answers: list[list[Any]] = [[None] * len(beneath.inputs) for _ in beneath.outputs]
    _, _, in_spec, out_spec, aux, *_ = recorded
    with levels_left():
        for numbers, captured in beneath.parts:
            is_whole = len(numbers) == len(beneath.inputs)
            inputs = beneath.inputs if is_whole else [beneath.inputs[number] for number in numbers]
            lead = len(beneath.in_levels[numbers[0]])
            part = Recorded(captured, inputs, in_spec, out_spec, aux, None, True, lead, recorded.outermost)
            modes = walking(part)
            with modes:
                rows, is_cut = find(part), modes.records and not captured.records
                for output, row in enumerate(rows):
                    for number, answer in zip(numbers, row, strict=True):
                        own = part.cut(answer) if is_cut else answer
                        answers[output][number] = inside(beneath, own, output, number)
    return answers


class walking:  # a context manager, and used as one
    """The modes in which a tape is walked.

    It is recorded itself only where it must be (`Recorded.walks_recorded`), and never rounded by an autocast
    around the call: that concerns the ops of the function. Inside a trace, where entries stand stays known.
    """

    __slots__ = ("grad", "modes", "records")

    def __init__(self, recorded: Recorded) -> None:
        self.records = recorded.walks_recorded
        self.modes = list(_rare_modes(recorded)) if _may_need_modes() else ()

    def __enter__(self) -> None:
        self.grad = torch.is_grad_enabled()
        for mode in self.modes:
            mode.__enter__()
        set_grad_enabled(self.records)

    def __exit__(self, *exception: Any) -> None:
        for mode in reversed(self.modes):
            mode.__exit__(*exception)
        set_grad_enabled(self.grad)


def _may_need_modes() -> bool:
    return (
        any_made()
        or torch.is_inference_mode_enabled()
        or is_any_autocast_enabled()
        or dispatch_mode_count() > 0
    )


def _rare_modes(recorded: Recorded) -> Iterator[Any]:
    if any_made():
        yield blocks_kept()
    if is_tracing():
        yield constants_computed()
    if torch.is_inference_mode_enabled():
        yield normal_mode()
    if is_any_autocast_enabled():
        kinds = {tensor.device.type for tensor in (*recorded.inputs, *recorded.captured.outputs)}
        for kind in kinds - {"meta"}:
            if torch.is_autocast_enabled(kind):
                yield _NotRounded(kind)


class _NotRounded(Change):
    """An autocast that is off. One inside it would keep count of itself, where nobody could set that back."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def make(self) -> None:
        """Turn it off."""
        torch.set_autocast_enabled(self.kind, False)

    def undo(self) -> None:
        """Turn it on."""
        torch.set_autocast_enabled(self.kind, True)


def check_callable(func: Any, what: str) -> None:
    """Raise unless the function can be called."""
    if not callable(func):
        hint = "; give the function itself, not what it returns" if isinstance(func, Tensor) else ""
        raise TypeError(f"{what}: func must be callable, got {func!r} of type {type(func).__name__}{hint}")


def check_function(func: Any, argnums: Any, chunk_size: Any, what: str) -> None:
    """Raise unless the function can be called and the chunk size is a positive int or None."""
    check_callable(func, what)
    given = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    tensor = next((each for each in given if isinstance(each, Tensor)), None)
    if tensor is not None:  # anything else that is no argnums is told when the arguments are there
        raise RuntimeError(
            f"{what}: argnums must be an int or a tuple of ints, got a tensor of shape {tuple(tensor.shape)}; "
            f"{what} takes a function and gives one: {what}(func)(x)"
        )
    if chunk_size is None:
        return
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(
            f"{what}: chunk_size must be a positive int or None, got {chunk_size!r} of type "
            f"{type(chunk_size).__name__}"
        )
    if chunk_size <= 0:
        raise ValueError(f"{what}: chunk_size must be a positive int or None, got {chunk_size}")
