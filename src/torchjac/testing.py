"""Checking Jacobians: ours against the row-by-row loop and finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._accumulate.progress import track
from ._accumulate.reverse import accumulate
from ._answers.forms import SumOfBlocks
from ._answers.operator import Jacobian
from ._transforms.arguments import check_argnums, check_leaf
from ._transforms.call_function import record, walking
from ._transforms.jacobian import jacobian
from ._transforms.jacrev import jacrev

__all__ = ["check_jacobian", "check_rule", "finite_differences", "loop_jacobian"]


def loop_jacobian(func: Callable[..., Tensor], *args: Any, argnum: int = 0) -> Tensor:
    """Return the Jacobian row by row: `torch.autograd.grad` called once for each entry of the output.

    ``func`` takes any arguments and returns one tensor; ``args[argnum]`` is a floating-point tensor. Slow,
    and right wherever autograd is.

    Example:
        >>> import torch
        >>> loop_jacobian(torch.square, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    argnum, given = _differentiated(args, argnum, "loop_jacobian")
    source = given.detach().requires_grad_()
    with torch.enable_grad():
        output = func(*args[:argnum], source.clone(), *args[argnum + 1 :])
        if not isinstance(output, Tensor):
            raise TypeError(f"loop_jacobian: func must return one tensor, got {type(output).__name__}")
        entries = output.reshape(-1).unbind()
    rows = []
    for entry in track(entries, "rows of the loop"):
        (row,) = (
            torch.autograd.grad(entry, source, retain_graph=True, allow_unused=True)
            if entry.requires_grad
            else (None,)
        )
        rows.append(torch.zeros_like(source) if row is None else row)
    if not rows:
        return torch.zeros((*output.shape, *source.shape), dtype=source.dtype, device=source.device)
    jacobian: Tensor = torch.stack(rows).reshape((*output.shape, *source.shape))
    return jacobian


def finite_differences(
    func: Callable[..., Tensor], *args: Any, argnum: int = 0, step: float = 1e-6
) -> Tensor:
    """Return the Jacobian by central differences, (f(x + h e) − f(x − h e)) / 2h for each entry of the input.

    Takes what `loop_jacobian` takes; meant for float64, where the error is about 1e-9 of the values. A step below the
    square root of the dtype's precision is refused.

    Example:
        >>> import torch
        >>> finite_differences(torch.square, torch.tensor([1.0], dtype=torch.float64)).round(decimals=6)
        tensor([[2.]], dtype=torch.float64)
    """
    argnum, given = _differentiated(args, argnum, "finite_differences")
    if not step > 0:
        raise ValueError(f"finite_differences: step must be positive, got {step}")
    least = torch.finfo(given.dtype).eps ** 0.5
    if step < least:
        raise ValueError(
            f"finite_differences: step {step} is lost in the rounding of {given.dtype}; give float64 tensors, or a "
            f"step of at least {least:.0e}"
        )
    source = given.detach()
    columns = []
    with torch.no_grad():
        for position in track(range(source.numel()), "differences"):
            shift = torch.zeros_like(source, memory_format=torch.contiguous_format)
            shift.view(-1)[position] = step
            ahead = func(*args[:argnum], source + shift, *args[argnum + 1 :])
            behind = func(*args[:argnum], source - shift, *args[argnum + 1 :])
            columns.append((ahead - behind) / (2 * step))
        if not columns:
            shape = func(*args).shape
            return torch.zeros((*shape, *source.shape), dtype=source.dtype, device=source.device)
    jacobian: Tensor = torch.stack(columns, -1).reshape((*columns[0].shape, *source.shape))
    return jacobian


def _differentiated(args: tuple[Any, ...], argnum: int, what: str) -> tuple[int, Tensor]:
    """Return the position of the argument that is differentiated, and the argument."""
    (argnum,) = check_argnums(argnum, len(args), what)
    check_leaf(args[argnum], what, "input")
    return argnum, args[argnum]


def check_jacobian(
    func: Callable[..., Tensor],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    differences: bool = True,
) -> list[Jacobian]:
    """Check a function's Jacobians, blocks from either end and dense, against the loop and finite differences.

    Use it on your own `torch.autograd.Function`, or on a program that uses a rule of your own.

    Args:
        func: a function of any arguments that returns one tensor.
        args: its arguments; those at ``argnums`` are floating-point tensors, best in float64.
        argnums: which arguments to differentiate, each on its own.
        rtol: relative tolerance against the loop.
        atol: absolute tolerance against the loop.
        differences: whether to compare with finite differences too, to 1e-5 (float64 only).

    Returns:
        The structured Jacobians, one for each argument, to look at ``.blocks`` and ``.stored``.

    Raises:
        AssertionError: with the largest difference, where they do not agree.

    Example:
        >>> import torch
        >>> (J,) = check_jacobian(torch.sin, torch.randn(5, dtype=torch.float64))
        >>> J.stored
        5
    """
    found = []
    for argnum in (argnums,) if isinstance(argnums, int) else argnums:
        expected = loop_jacobian(func, *args, argnum=argnum)
        operator = _structured(func, argnum, args)
        _agree("the loop", argnum, operator.to_dense(), expected, rtol, atol)
        ahead = jacobian(func, argnum, mode="forward")(*args)
        _agree("the loop (forward)", argnum, ahead.to_dense(), expected, rtol, atol)
        _agree("the loop (jacrev)", argnum, jacrev(func, argnum)(*args), expected, rtol, atol)
        if differences and expected.dtype == torch.float64:
            differenced = finite_differences(func, *args, argnum=argnum)
            _agree("finite differences", argnum, operator.to_dense(), differenced, 1e-5, 1e-5)
        found.append(operator)
    return found


def _agree(oracle: str, argnum: int, actual: Tensor, expected: Tensor, rtol: float, atol: float) -> None:
    torch.testing.assert_close(
        actual,
        expected,
        rtol=rtol,
        atol=atol,
        equal_nan=True,
        msg=lambda text: f"Jacobian of argument {argnum} against {oracle}: {text}",
    )


def check_rule(op: Callable[..., Tensor], *args: Any, differences: bool = True) -> list[Jacobian]:
    """Check the local Jacobians of one op with respect to every floating-point tensor among its arguments.

    Returns them, structured, so that a test can also say what they store.

    Raises:
        AssertionError: where they do not agree with the loop or with finite differences.
        TypeError: if there is no such tensor.

    Example:
        >>> import torch
        >>> a, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
        >>> [J.stored for J in check_rule(torch.mm, a, b)]
        [12, 6]
    """
    argnums = [k for k, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()]
    if not argnums:
        kinds = ", ".join(type(arg).__name__ for arg in args) or "no arguments"
        raise TypeError(
            f"check_rule: give the op's arguments, a floating-point tensor among them; got {kinds}"
        )
    return check_jacobian(op, *args, argnums=argnums, differences=differences)


def _structured(func: Callable[..., Tensor], argnum: int, args: tuple[Any, ...]) -> Jacobian:
    recorded = record("check_jacobian", func, argnum, False, args, {})
    with walking(recorded):
        ((blocks,),) = accumulate(recorded.captured.tape, recorded.shapes)
    (source,), (shape,) = recorded.inputs, recorded.shapes
    return Jacobian(SumOfBlocks(shape, tuple(source.shape), source.dtype, source.device, tuple(blocks)))
