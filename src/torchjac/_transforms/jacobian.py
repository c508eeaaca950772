"""jacobian: the Jacobian as an operator, with the structure that was found."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from .._accumulate.report import Report
from .._accumulate.reverse import accumulate
from .._answers.operator import Jacobian
from .run import check_function, record, walking


def jacobian(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian of ``func`` as an operator: the blocks that were found, and nothing written out.

    Takes the same functions and arguments as `jacrev`; each leaf of the result is a `Jacobian` instead of a
    dense tensor, so its cost is that of the structure and not of ``output.numel() * input.numel()``.

    Raises:
        RuntimeError: as `jacrev` does, and where ``func`` registers tensor hooks: they act on whole
            cotangents, which are not formed here.

    Example:
        >>> import torch
        >>> from torchjac import jacobian
        >>> J = jacobian(lambda x: x[1:] - x[:-1].sin())(torch.zeros(1_000_000, dtype=torch.float64))
        >>> J.nnz, J.stored, len(J.blocks)
        (1999998, 999999, 2)
    """
    check_function(func, None, "jacobian")

    @wraps(func)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        recorded = record("jacobian", func, argnums, has_aux, args, kwargs)
        if recorded.captured.hooked:
            raise RuntimeError(
                "jacobian: func registers hooks that act on gradients (Tensor.register_hook or a module's full "
                "backward hook), which only PyTorch's engine can run; use jacrev, which asks the engine"
            )
        with walking(recorded):
            report = Report()
            found = accumulate(recorded.captured.tape, recorded.shapes, report=report)
        answers = [
            [
                Jacobian(shape, tuple(tensor.shape), tensor.dtype, tensor.device, tuple(blocks), report)
                for blocks, tensor in zip(row, recorded.inputs, strict=True)
            ]
            for row, shape in zip(found, recorded.shapes, strict=True)
        ]
        return recorded.finish(answers, has_aux)

    return jacobian_of
