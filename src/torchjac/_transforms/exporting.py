"""Inside `torch.export`: a transform is recorded beneath its tracer, and the ops recorded are run for it to see.

That tracer stands above autograd, so it sees neither what autograd saved nor the ops of a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .._blocks.tracing import inside_functorch
from .._capture.constant_folding import Constants
from .._torch import (
    disable_current_modes,
    function_mode_count,
    pop_mode,
    pre_dispatch_mode_count,
    push_mode,
    tracer_mode,
)
from .op_recording import record_ops
from .program import flattened
from .signature import read_call


def is_exporting() -> bool:
    """Return whether `torch.export` traces what is called."""
    return torch.compiler.is_exporting() and pre_dispatch_mode_count() > 0


def replayed(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what a function gives, its ops recorded and run. Gradients end there, since some of its ops detach.

    Raises:
        NotImplementedError: inside vmap or another transform, as some ops have no batching rule.
    """
    if inside_functorch():
        raise NotImplementedError(
            "inside torch.export, a Jacobian cannot be taken inside vmap or another functorch transform; "
            "torchjac.export takes vmap(jacrev(f)) as it is"
        )
    call = read_call(tuple(args), dict(kwargs))
    flat, found = flattened(function, call)

    def run(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        with Constants() as constants:
            return flat(tensors, constants)

    fake = tracer_mode("FAKE")
    with _left():
        recording = record_ops(run, call.tensors, fake)
    given = [
        tensor.detach() if tensor.requires_grad else tensor for tensor in (*call.tensors, *recording.captured)
    ]
    outputs = recording.graph.forward(*given)
    return found[0].plan(list(range(len(outputs))))(outputs)


@contextmanager
def _left() -> Iterator[None]:
    """Leave all modes of dispatch and of functions for a while."""
    modes = []
    try:
        while function_mode_count() > 0:
            modes.append(pop_mode())
        with disable_current_modes():
            yield
    finally:
        for mode in reversed(modes):
            push_mode(mode)
