"""Run a function so that autograd records it, and keep the graph between its inputs and its outputs.

Outside any functorch transform this is plain autograd, so whatever autograd can do works: checkpointing,
saved-tensor hooks, modules in training mode, old-style Functions. Inside `vmap`, `grad`, `jvp` or `vjp`
the function runs at a functorch level of its own, and the graph of that level is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from .._blocks.lazy import lazy
from .._blocks.tracing import inside_functorch, is_tracing
from .._plan.program import runs_made
from .._plan.recording import refuse_program
from .._torch import (
    TransformType,
    VmapInterpreter,
    add_batch_dim,
    allow_saved_hooks,
    enter_grad,
    enter_vmap,
    grad_fn_of,
    inplace_requires_grad_allowed,
    interpreter_stack,
    is_level_tensor,
    leave_grad,
    leave_vmap,
    refuse_saved_hooks,
    remove_batch_dim,
    requires_grad_of,
    saved_hooks_refusal,
    set_grad_enabled,
    set_inplace_requires_grad_allowed,
    unwrapped,
    wrap_for_grad,
)
from .deletion import anchor
from .detach import detach_keep_tangent
from .graph import SPENT, Graph, read_graph
from .hooks import has_hooks, hooks_made
from .inference import run_normally
from .read_tape import tape_of
from .recognise import graph_between
from .state import normal_mode
from .tape import Tape
from .writing_functions import last_write, mark_writes

#: A function of tensors as `capture` runs it: its outputs, and anything else it has to tell
Run: TypeAlias = Callable[[list[Tensor]], tuple[list[Tensor], Any]]

#: A result for a row, which may be None
R = TypeVar("R", Tensor, Tensor | None)


@dataclass
class Captured:
    """The result of running a function: outputs, auxiliary results, and the graph between.

    ``records`` tells that something outside asks for gradients of the answer, ``hooked`` that hooks were
    registered on the way, which only PyTorch's engine runs, ``added`` what was added to the graph that the function
    recorded, as part of a key, and ``ran`` that the function ran programs: Jacobians in it that were taken before.
    """

    outputs: list[Tensor]
    extra: Any
    graph: Graph
    records: bool
    hooked: bool
    added: Hashable = None
    ran: bool = False

    @lazy
    def tape(self) -> Tape:
        """The nodes of the graph in walking order, read where they are needed."""
        return tape_of(self.graph)

    @property
    def recorded(self) -> Captured:
        """The capture whose graph the function recorded, by which programs are known: this one, or one beneath it."""
        return self

    def made(self, is_read: bool) -> list[Any]:
        """Return the outputs and nodes that were added, or Nones if a program does not read them."""
        return []


def batched_zero(like: Tensor) -> Tensor:
    """Return a zero that has the batch dim of every active vmap."""
    levels = active_vmaps()
    zero = plain(torch.zeros((), dtype=like.dtype, device=like.device).expand([size for _, size in levels]))
    for level, _ in levels:
        zero = add_batch_dim(zero, 0, level)
    return zero


def mapped_over() -> int:
    """Return how many calls every active vmap makes one of, all together."""
    return prod([size for _, size in active_vmaps()]) if inside_functorch() else 1


def active_vmaps() -> list[tuple[int, int]]:
    """Return the level and the size of every active vmap, the outermost first."""
    return [
        (level.level(), VmapInterpreter(level).batchSize())
        for level in interpreter_stack() or ()
        if level.key() == TransformType.Vmap
    ]


def as_batched(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with the batch dims that another has: shared by all samples, it would be one memory for all."""
    lacking = plain(like).dim() - like.dim() > plain(tensor).dim() - tensor.dim()
    return tensor + like.new_zeros((), dtype=tensor.dtype, device=tensor.device) if lacking else tensor


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor that the levels of functorch wrapped, with all their batch dims."""
    while is_level_tensor(tensor):
        tensor = unwrapped(tensor)
    return tensor


def map_rows(function: Callable[..., Sequence[R]], rows: Sequence[Tensor]) -> list[R]:
    """Call a function once for all rows of some tensors: `torch.func.vmap` over dim 0, results in dim 0 too.

    It goes without the trees and checks of `vmap`, which cost as much as the engine does on a tiny graph, and
    lets a result be None.
    """
    count = rows[0].shape[0]
    level = enter_vmap(count, "error")
    try:
        results = function(*[add_batch_dim(part, 0, level) for part in rows])
        return [result if result is None else remove_batch_dim(result, level, count, 0) for result in results]
    finally:
        leave_vmap()


def capture(run: Run, inputs: Sequence[Tensor]) -> Captured:
    """Call ``run`` on inputs that are differentiated."""
    return capture_at_level(run, inputs) if inside_functorch() else capture_in_autograd(run, inputs)


def capture_in_autograd(run: Run, inputs: Sequence[Tensor]) -> Captured:
    """Run outside of functorch."""
    refuse_program("a graph of its own")
    enabled = torch.is_grad_enabled()
    if torch.is_inference_mode_enabled():
        with normal_mode(), torch.enable_grad():
            return _with_grad(run, inputs, False, True)
    try:
        set_grad_enabled(True)  # what `enable_grad` does
        return _with_grad(run, inputs, enabled, False)
    finally:
        set_grad_enabled(enabled)


def _with_grad(run: Run, inputs: Sequence[Tensor], recording: bool, inferring: bool) -> Captured:
    before, runs, written = hooks_made(), runs_made(), last_write()
    leaves: list[Tensor] = []

    def recorded() -> tuple[list[Any], list[Tensor], Any]:
        entries = []
        for tensor in inputs:
            is_given = recording and requires_grad_of(tensor)
            # The graph begins with a copy: the function may write into it, and the caller's tensor stays.
            entries.append(_copy(tensor if is_given else _leaf(tensor, leaves)))
        starts = list(map(grad_fn_of, entries))  # read now: a write in place gives the tensor another
        return starts, *run(entries)

    starts, outputs, extra = run_normally(recorded, inputs, inferring)
    graph = graph_between(outputs, starts)
    records = recording and graph.foreign
    if recording:
        for tensor, start in zip(inputs, starts, strict=True):
            if requires_grad_of(tensor):
                records = True
                if grad_fn_of(tensor) is not None:  # a chain of calls is one graph
                    anchor(start)
    for leaf in leaves:
        setattr(leaf, SPENT, True)
    if graph.known is None:
        _refuse_reentrant(graph)
    hooked = hooks_made() != before and has_hooks(graph)
    return Captured(outputs, extra, graph, records, hooked, mark_writes(graph, written), runs_made() != runs)


def _refuse_reentrant(graph: Graph) -> None:
    """Refuse what PyTorch's engine refuses: called on its own, the node writes to parameters' ``.grad``."""
    if "CheckpointFunctionBackward" in graph.names:
        raise RuntimeError(
            "torch.utils.checkpoint with use_reentrant=True works with .backward() only, not with Jacobians "
            "or torch.autograd.grad; call checkpoint(..., use_reentrant=False)"
        )


#: The most places in memory for each entry of an argument, where its copy keeps the gaps
MOST_PLACES = 8


def _copy(tensor: Tensor) -> Tensor:
    """Return a copy with the same strides, gaps between its entries included: a function may look at them.

    Entries that share memory, as those of unfolded windows, and those that lie far apart are laid side by side.
    """
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return tensor.clone()
    places = 1
    for step, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and step < places:
            return tensor.clone()
        places += step * (size - 1)
    if not tensor.numel() < places <= MOST_PLACES * tensor.numel():
        return tensor.clone()
    if is_tracing():  # a trace may lose what is written in place
        where = tensor.shape, tensor.stride(), 0
        return tensor.new_zeros(places).as_strided_scatter(tensor, *where).as_strided(*where)
    return tensor.new_empty_strided(tensor.shape, tensor.stride()).copy_(tensor)


def _leaf(tensor: Tensor, leaves: list[Tensor]) -> Tensor:
    """Return a tensor of ours that asks for gradients, added to those to be spent when the function has run."""
    # A tensor made under inference_mode cannot be saved for backward: only a copy can.
    leaf = (tensor.clone() if tensor.is_inference() else detach_keep_tangent(tensor)).requires_grad_()
    leaves.append(leaf)
    return leaf


#: What torch.func tells a function that saves through hooks
_NO_SAVING = (
    "torch.func.{grad, vjp, jacrev, hessian} don't yet support saved tensor hooks. "
    "Please open an issue with your use case."
)


class _saving_refused:  # a context manager, and used as one
    """Refuse hooks on saved tensors, as torch.func does."""

    def __enter__(self) -> None:
        self.before = saved_hooks_refusal()
        refuse_saved_hooks(_NO_SAVING)

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            allow_saved_hooks()
        else:
            refuse_saved_hooks(self.before)


def capture_at_level(run: Run, inputs: Sequence[Tensor]) -> Captured:
    """Run at a level of its own: what `torch.func.vjp` does, without its trees and checks, half of a small capture."""
    refuse_program("a graph of its own")
    before, written = hooks_made(), last_write()
    with _saving_refused():
        level = enter_grad()
        try:
            with torch.enable_grad():
                entries = list(map(_copy, _sources(inputs, level)))
                starts = [tensor.grad_fn for tensor in entries]
                if None in starts:
                    raise RuntimeError(
                        f"PyTorch {torch.__version__} records no graph inside both inference_mode and a transform of "
                        "torch.func; use torch.no_grad in place of inference_mode, or PyTorch 2.13"
                    )
                outputs, extra = run(entries)
        finally:
            leave_grad()
    graph = read_graph(outputs, starts)
    _refuse_reentrant(graph)
    mark_writes(graph, written)
    hooked = hooks_made() != before and has_hooks(graph)
    return Captured(outputs, extra, graph, torch.is_grad_enabled(), hooked)


def _sources(inputs: Sequence[Tensor], level: int) -> list[Tensor]:
    """Tensors as the leaves of a level."""
    allowed = inplace_requires_grad_allowed()
    set_inplace_requires_grad_allowed(True)
    try:
        return [wrap_for_grad(tensor, level).requires_grad_() for tensor in inputs]
    finally:
        set_inplace_requires_grad_allowed(allowed)
