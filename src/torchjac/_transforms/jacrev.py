"""jacrev: the Jacobian of a function of tensors by reverse-mode automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from .._accumulate.progress import watched
from .._answers.operator import Jacobian
from .._capture.state import undisturbed
from .call_function import Recorded, check_function, record
from .dense import dense_answers, dense_jacobians
from .dynamo import seen_by_tracers
from .memory import budget, check_within
from .operators import OPERATOR, Layout, check_layout, operators
from .out import check_out
from .row_ranges import dense_within, operators_within, sparse_within
from .sparse_layout import sparse_jacobians

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .overloads import A, Both, First, JacrevOptions, No, One, P, Pair, Yes, Zero


@overload
def jacrev(
    func: First[P, Tensor], argnums: Zero = 0, *, has_aux: No = False, **options: Unpack[JacrevOptions]
) -> First[P, Tensor]: ...


@overload
def jacrev(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes, **options: Unpack[JacrevOptions]
) -> First[P, tuple[Tensor, A]]: ...


@overload
def jacrev(
    func: Both[P, Tensor], argnums: One, *, has_aux: No = False, **options: Unpack[JacrevOptions]
) -> Both[P, Tensor]: ...


@overload
def jacrev(
    func: Both[P, Tensor], argnums: Pair, *, has_aux: No = False, **options: Unpack[JacrevOptions]
) -> Both[P, tuple[Tensor, Tensor]]: ...


@overload
def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    **options: Unpack[JacrevOptions],
) -> Any: ...


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    layout: torch.layout = torch.strided,
    progress: bool = False,
    out: Any = None,
    memory: int | str | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """Compute the Jacobian of ``func`` with respect to the arguments at ``argnums``, by reverse-mode autodiff.

    For ``y = func(x)`` the answer is ``J[o…, i…] = ∂y[o…] / ∂x[i…]``. It is what `torch.func.jacrev` gives,
    found by composing the local Jacobians of the ops that autograd recorded, each with the structure it has.

    Args:
        func: a function of any arguments that returns a tensor or a pytree of tensors, all real floating-point.
        argnums: the positional argument, or tuple of them, to differentiate; negative ones count from the end.
            Each may be a tensor or a pytree of tensors, all real floating-point.
        has_aux: whether ``func`` returns a pair ``(output, aux)``; aux, of any kind, is handed through.
        chunk_size: how many dense rows are pushed at once through an op that has no structure; by default
            as many as fit a memory budget.
        layout: ``torch.strided``, or ``torch.sparse_coo``, ``sparse_csr``, ``sparse_csc`` or ``sparse_bsr`` for sparse
            matrices of shape ``(output.numel(), input.numel())`` as `Jacobian.to_sparse` writes them, never dense in
            between.
        progress: whether to show a bar on standard error over whatever takes longer than a second (needs tqdm);
            dense rows then go in twenty pieces or more.
        out: tensors to write the answer into, a tree like the answer; every call fills them anew and returns them.
            They save a loop the making of large answers, and keep no graph. With a sparse layout they are matrices
            that the same function gave before, whose values alone are written.
        memory: a budget, in bytes or as "500 MB", for all that is alive at once beside the answer and what ``func``
            itself keeps. Where all rows at once do not fit, they are found one range after another. Unlike
            ``chunk_size`` it bounds bytes, whatever the op; only one of both can be given.
        _preallocate_and_copy: `torch.func.jacrev` has it, and libraries pass it; it is of no effect.

    Returns:
        A function of the same arguments (keyword arguments are passed on undifferentiated). It returns the
        Jacobian, or ``(Jacobian, aux)``: each output tensor becomes a tree like the differentiated argument
        (a tuple of trees if ``argnums`` is a tuple) of tensors of shape ``output.shape + input.shape``, in the
        input's dtype and on its device. The result is differentiable through inputs and captured tensors that
        require gradients outside. An inner `torch.no_grad` counts, an outer one does not.

    Raises:
        RuntimeError: if argnums are out of range, repeated, empty or no ints; if a differentiated input or an
            output is an integer or boolean tensor, or an output is no tensor; if there is no output; if
            ``has_aux`` is set and the function returns no pair; if ``out`` or ``memory`` is given where gradients of
            the answer are asked for, or ``memory`` inside a torch.func transform.
        NotImplementedError: for complex or sparse inputs or outputs.
        TypeError: if ``func`` is not callable, or ``chunk_size`` or ``memory`` is no such number.
        ValueError: if a differentiated input is no tensor, or ``chunk_size`` or ``memory`` is not positive, or both
            are given, or the layout is none of these, or ``out`` is not like the answer.
        MemoryError: if a single row needs more than ``memory``.
        ImportError: if ``progress`` is set and tqdm is not installed.

    Example:
        >>> import torch
        >>> from torchjac import jacrev, vmap
        >>> x = torch.tensor([0.0, 1.0])
        >>> jacrev(torch.sin)(x)
        tensor([[1.0000, 0.0000],
                [0.0000, 0.5403]])
        >>> vmap(jacrev(torch.sin))(torch.zeros(3, 2)).shape
        torch.Size([3, 2, 2])
        >>> jacrev(jacrev(lambda x: x.pow(3).sum()))(x)
        tensor([[0., 0.],
                [0., 6.]])
        >>> jacrev(torch.sin, layout=torch.sparse_csr)(torch.zeros(1_000_000)).values().shape
        torch.Size([1000000])

    Source:
        The calling convention is that of https://docs.pytorch.org/docs/stable/generated/torch.func.jacrev.html.
    """
    return reverse("jacrev", func, argnums, has_aux, chunk_size, layout, progress, out, memory)


def reverse(
    what: str,
    func: Callable[..., Any],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    chunk_size: int | None,
    layout: Layout = torch.strided,
    progress: bool = False,
    out: Any = None,
    memory: int | str | None = None,
    triangle: str | None = None,
) -> Callable[..., Any]:
    """`jacrev`, for a transform of this name."""
    check_function(func, argnums, chunk_size, what)
    check_layout(layout, what)
    if triangle is not None and (layout in (torch.strided, OPERATOR) or memory is not None):
        raise ValueError(
            f"{what}: triangle= goes with a sparse layout and without memory=, got layout={layout!r}; an operator's "
            "to_sparse takes it too"
        )
    most = budget(memory, what, chunk_size=chunk_size, out=None if layout is torch.strided else out)

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        with undisturbed():
            recorded = record(what, func, argnums, has_aux, args, kwargs)
            if most is not None:
                check_within(recorded, what)
                return recorded.finish(_within(recorded, layout, most, out, what), has_aux)
            if layout == OPERATOR:
                asked = f"{what} with layout={layout!r}"
                return recorded.finish(operators(recorded, asked, chunk_size), has_aux)
            if layout is not torch.strided:
                matrices = sparse_jacobians(recorded, layout, what, chunk_size, out, triangle)
                return recorded.finish(matrices, has_aux)
            outs = None if out is None else check_out(out, recorded, what)
            answers = dense_jacobians(recorded, chunk_size, outs=outs)
            return recorded.finish(answers, has_aux)

    plain = layout is torch.strided and out is None and most is None
    settings = ("auto", argnums, has_aux, chunk_size) if plain else None
    found = seen_by_tracers(what, func, jacobian_of, settings)
    return watched(found) if progress else found


def _within(
    recorded: Recorded, layout: Layout, most: int, out: Any, what: str
) -> Sequence[Sequence[Tensor | Jacobian]]:
    """Return the Jacobians ``[output][input]`` of a call, found within a budget."""
    if layout == OPERATOR:
        return operators_within(recorded, most, f"{what} with layout={layout!r}")
    if layout is not torch.strided:
        return sparse_within(recorded, layout, most, f"{what} with layout={layout}")
    outs = None if out is None else check_out(out, recorded, what)
    return dense_within(recorded, most, outs, lambda part, into: dense_answers(part, None, into=into), what)
