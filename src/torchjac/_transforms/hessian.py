"""hessian: the Jacobian of the gradient, reverse mode over reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from .._answers.operator import Jacobian
from .jacrev import reverse
from .operators import Layout

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .overloads import A, Blocks, First, HessianOptions, MemoryOptions, No, P, Yes, Zero


@overload
def hessian(
    func: First[P, Tensor], argnums: Zero = 0, *, has_aux: No = False, **options: Unpack[HessianOptions]
) -> First[P, Tensor]: ...


@overload
def hessian(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes, **options: Unpack[HessianOptions]
) -> First[P, tuple[Tensor, A]]: ...


@overload
def hessian(
    func: First[P, Tensor],
    argnums: Zero = 0,
    *,
    has_aux: No = False,
    layout: Blocks,
    **options: Unpack[MemoryOptions],
) -> First[P, Jacobian]: ...


@overload
def hessian(
    func: First[P, tuple[Tensor, A]],
    argnums: Zero = 0,
    *,
    has_aux: Yes,
    layout: Blocks,
    **options: Unpack[MemoryOptions],
) -> First[P, tuple[Jacobian, A]]: ...


@overload
def hessian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    layout: Layout = torch.strided,
    triangle: str | None = None,
    **options: Unpack[MemoryOptions],
) -> Any: ...


def hessian(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    layout: Layout = torch.strided,
    progress: bool = False,
    memory: int | str | None = None,
    triangle: str | None = None,
) -> Callable[..., Any]:
    """Compute the Hessian of ``func`` with respect to the arguments at ``argnums``, as ``jacrev(jacrev(func))``.

    ``H[o…, i…, j…] = ∂²y[o…] / ∂x[i…] ∂x[j…]``. It is what `torch.func.hessian` gives, in the same nested
    trees: that of the output, of the inputs, and of the inputs again. The outer walk sees the structure of what
    the inner one recorded, so the Hessian of a sum of local terms costs what its nonzeros do.

    Args:
        func: as for `jacrev`.
        argnums: as for `jacrev`.
        has_aux: whether ``func`` returns a pair ``(output, aux)``; the answer is then ``(Hessian, aux)``.
        chunk_size: how many dense rows are pushed at once through an op that has no structure.
        layout: as for `jacrev`; a sparse one gives for each leaf a matrix of shape
            ``(output.numel() * input.numel(), input.numel())``. With "operator" each leaf is a `Jacobian`, that of
            the gradient: blocks, with nothing written out.
        progress: as for `jacrev`.
        memory: as for `jacrev`; what the gradient itself keeps is not counted.
        triangle: "lower" or "upper", with a sparse layout, for the diagonal and what is below or above it: half of a
            symmetric matrix, of a function that gives one number of one tensor. Blocks that stand wholly on the other
            side are not computed from the second call on.

    Returns:
        A function of the same arguments, which returns the Hessian: with one tensor in and one out, a tensor of
        shape ``output.shape + input.shape + input.shape``.

    Raises:
        RuntimeError: as `jacrev` does.
        NotImplementedError: as `jacrev` does.
        TypeError: as `jacrev` does.
        ValueError: as `jacrev` does.

    Example:
        >>> import torch
        >>> from torchjac import hessian
        >>> hessian(lambda x: (x[1:] * x[:-1] ** 2).sum())(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[4., 2., 0.],
                [2., 6., 4.],
                [0., 4., 0.]])
        >>> H = hessian(lambda x: (x[1:] * x[:-1] ** 2).sum(), layout="operator")(torch.ones(1_000_000))
        >>> H.shape, H.nnz
        (torch.Size([1000000, 1000000]), 2999997)
    """
    gradient = reverse("hessian", func, argnums, has_aux, chunk_size)
    return reverse(
        "hessian", gradient, argnums, has_aux, chunk_size, layout, progress, memory=memory, triangle=triangle
    )
