"""jacobian and value_and_jacobian: the Jacobian as an operator, with the structure that was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from .._accumulate.progress import watched
from .._answers.operator import Jacobian
from .._blocks.tracing import inside_functorch
from .._capture.state import undisturbed
from .._torch import unwrap_if_dead
from .arguments import unflatten
from .call_function import Recorded, check_function, record
from .dynamo import seen_by_tracers
from .memory import budget, check_within
from .operators import operators
from .row_ranges import operators_within

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .overloads import A, Both, First, JacobianOptions, No, One, OperatorOptions, P, Pair, Yes, Zero

MODES = ("auto", "reverse", "forward")


@overload
def jacobian(
    func: First[P, Tensor], argnums: Zero = 0, *, has_aux: No = False, **options: Unpack[JacobianOptions]
) -> First[P, Jacobian]: ...


@overload
def jacobian(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes, **options: Unpack[JacobianOptions]
) -> First[P, tuple[Jacobian, A]]: ...


@overload
def jacobian(
    func: Both[P, Tensor], argnums: One, *, has_aux: No = False, **options: Unpack[JacobianOptions]
) -> Both[P, Jacobian]: ...


@overload
def jacobian(
    func: Both[P, Tensor], argnums: Pair, *, has_aux: No = False, **options: Unpack[JacobianOptions]
) -> Both[P, tuple[Jacobian, Jacobian]]: ...


@overload
def jacobian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    **options: Unpack[JacobianOptions],
) -> Any: ...


def jacobian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    mode: str = "auto",
    progress: bool = False,
    memory: int | str | None = None,
) -> Callable[..., Any]:
    """Compute the Jacobian of ``func`` as an operator: the blocks that were found, and nothing written out.

    Takes the same functions and arguments as `jacrev`; each leaf of the result is a `Jacobian` instead of a
    dense tensor, so its cost is that of the structure and not of ``output.numel() * input.numel()``.
    ``progress`` shows a bar over whatever takes longer than a second, as it does for `jacrev`.

    ``mode`` is the order in which the local Jacobians of the recorded ops are multiplied: "reverse" from the
    outputs down, "forward" from the inputs up, "auto" whichever the shapes say is cheaper. They differ in cost,
    and by rounding; where the function touches complex numbers, or calls a `torch.autograd.Function` that no rule
    speaks for, all of them go in reverse.

    ``memory`` is a budget, in bytes or as "500 MB", for all that is alive at once beside the answer and what ``func``
    itself keeps, as for `jacrev`. Where the walk of all rows does not fit, each range of rows has blocks of its own.

    Raises:
        MemoryError: if a single row needs more than ``memory``.
        RuntimeError: as `jacrev` does, and where ``func`` registers tensor hooks: they act on whole
            cotangents, which are not formed here.
        ValueError: as `jacrev` does, and where ``mode`` is none of these.

    Example:
        >>> import torch
        >>> from torchjac import jacobian
        >>> J = jacobian(lambda x: x[1:] - x[:-1].sin())(torch.zeros(1_000_000, dtype=torch.float64))
        >>> J.nnz, J.stored, len(J.blocks)
        (1999998, 999999, 2)
    """
    check_function(func, argnums, None, "jacobian")
    _check_mode(mode, "jacobian")
    most = budget(memory, "jacobian")

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        with undisturbed():
            recorded = record("jacobian", func, argnums, has_aux, args, kwargs)
            if most is not None:
                check_within(recorded, "jacobian")
                return recorded.finish(operators_within(recorded, most, "jacobian", mode), has_aux)
            return recorded.finish(operators(recorded, "jacobian", mode=mode), has_aux)

    found = seen_by_tracers("jacobian", func, jacobian_of)
    return watched(found) if progress else found


@overload
def value_and_jacobian(
    func: First[P, Tensor], argnums: Zero = 0, *, has_aux: No = False, **options: Unpack[OperatorOptions]
) -> First[P, tuple[Tensor, Jacobian]]: ...


@overload
def value_and_jacobian(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes, **options: Unpack[OperatorOptions]
) -> First[P, tuple[tuple[Tensor, A], Jacobian]]: ...


@overload
def value_and_jacobian(
    func: Both[P, Tensor], argnums: One, *, has_aux: No = False, **options: Unpack[OperatorOptions]
) -> Both[P, tuple[Tensor, Jacobian]]: ...


@overload
def value_and_jacobian(
    func: Both[P, Tensor], argnums: Pair, *, has_aux: No = False, **options: Unpack[OperatorOptions]
) -> Both[P, tuple[Tensor, tuple[Jacobian, Jacobian]]]: ...


@overload
def value_and_jacobian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    **options: Unpack[OperatorOptions],
) -> Any: ...


def value_and_jacobian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    mode: str = "auto",
    progress: bool = False,
) -> Callable[..., Any]:
    """Compute the value of ``func`` and its Jacobian as an operator, from one call of ``func``.

    The function returned gives ``(value, J)``, or ``((value, aux), J)`` with ``has_aux``; ``J`` is what
    `jacobian` gives, in the same ``mode``.

    Raises:
        RuntimeError: as `jacobian` does.
        ValueError: as `jacobian` does.

    Example:
        >>> import torch
        >>> from torchjac import value_and_jacobian
        >>> x = torch.tensor([2.0])
        >>> for _ in range(5):  # Newton's method for x² = 2
        ...     value, J = value_and_jacobian(lambda x: x**2 - 2)(x)
        ...     x = x - J.solve(value)
        >>> x
        tensor([1.4142])
    """
    check_function(func, argnums, None, "value_and_jacobian")
    _check_mode(mode, "value_and_jacobian")

    def value_and_jacobian_of(*args: Any, **kwargs: Any) -> Any:
        with undisturbed():
            recorded = record("value_and_jacobian", func, argnums, has_aux, args, kwargs)
            answer = recorded.finish(operators(recorded, "value_and_jacobian", mode=mode), has_aux)
            value = _value(recorded)
        return ((value, answer[1]), answer[0]) if has_aux else (value, answer)

    found = seen_by_tracers("value_and_jacobian", func, value_and_jacobian_of)
    return watched(found) if progress else found


def _check_mode(mode: str, what: str) -> None:
    if mode not in MODES:
        raise ValueError(f"{what}: mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")


def _value(recorded: Recorded) -> Any:
    """Return the output of the recorded call, as the caller's own level of functorch transforms knows it."""
    outputs = recorded.captured.outputs if recorded.beneath is None else recorded.beneath.outputs
    if recorded.beneath is None and inside_functorch():
        outputs = [unwrap_if_dead(output) for output in outputs]
    elif not recorded.captured.records:
        outputs = [output.detach() for output in outputs]
    return unflatten(outputs, recorded.out_spec)
