"""jacrev: the Jacobian of a function of tensors by reverse-mode automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from .._accumulate.reverse import accumulate
from .._blocks.write import dense
from .._capture.capture import capture
from .arguments import (
    check_argnums,
    check_outputs,
    detached,
    differentiated,
    nest,
    put_arguments,
    pytree,
    split_aux,
)


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    if not callable(func):
        raise TypeError(f"jacrev: func must be callable, got {func!r} of type {type(func).__name__}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"jacrev: chunk_size must be a positive int or None, got {chunk_size!r}")

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        positions = check_argnums(argnums, len(args), "jacrev")
        inputs, in_spec = differentiated(args, argnums, positions, "jacrev")

        def run(leaves: list[Tensor]) -> tuple[list[Tensor], tuple[Any, Any]]:
            chosen = pytree.tree_unflatten(leaves, in_spec)
            result = func(*put_arguments(args, argnums, positions, chosen), **kwargs)
            output, aux = split_aux(result, has_aux, "jacrev")
            outputs, out_spec = check_outputs(output, "jacrev")
            return outputs, (out_spec, aux)

        captured = capture(run, inputs)
        out_spec, aux = captured.extra
        shapes = [tuple(output.shape) for output in captured.outputs]
        with torch.inference_mode(False), torch.set_grad_enabled(captured.records):
            blocks = accumulate(captured.tape, shapes, chunk_size)
            answers = [
                [
                    dense(terms, shape, tuple(tensor.shape), _like(tensor))
                    for terms, tensor in zip(row, inputs, strict=True)
                ]
                for row, shape in zip(blocks, shapes, strict=True)
            ]
        jacobians = nest(answers, out_spec, in_spec)
        return (jacobians, aux if captured.records else detached(aux)) if has_aux else jacobians

    return jacobian


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device)
