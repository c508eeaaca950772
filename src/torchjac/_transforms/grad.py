"""grad: the gradient of a scalar function, a Jacobian of one row, so that it nests in the others as they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

# Taken once: ours may be put under its name.
from torch.func import grad_and_value as functorch_grad_and_value

from .._blocks.tracing import inside_functorch
from .._capture.vmap_levels import levels_now
from .._torch import pytree
from .arguments import check_argnums, chosen_arguments, put_arguments, split_aux
from .call_function import check_function
from .jacrev import reverse

if TYPE_CHECKING:
    from .overloads import A, First, No, P, Yes, Zero


@overload
def grad(func: First[P, Tensor], argnums: Zero = 0, has_aux: No = False) -> First[P, Tensor]: ...


@overload
def grad(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes
) -> First[P, tuple[Tensor, A]]: ...


@overload
def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]: ...


def grad(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Compute the gradient of ``func``, which returns one number, with respect to the arguments at ``argnums``.

    For ``y = func(x)`` the answer is ``g[i…] = ∂y / ∂x[i…]``: the one row of the Jacobian. Directly inside a transform
    of torch.func it is `torch.func.grad` itself, with what that refuses.

    Args:
        func: a function of any arguments that returns a real tensor of shape ``()``.
        argnums: the positional argument, or tuple of them, to differentiate; negative ones count from the end.
            Each may be a tensor or a pytree of tensors, all floating-point or complex.
        has_aux: whether ``func`` returns a pair ``(output, aux)``; aux, of any kind, is handed through.

    Returns:
        A function of the same arguments. It returns a tree like the differentiated argument (a tuple of trees if
        ``argnums`` is a tuple), or that and aux. Where an input is complex its gradient is
        ``∂y/∂Re(x) + i ∂y/∂Im(x)``.

    Raises:
        RuntimeError: as `jacrev` does, and if the output is not one number.
        NotImplementedError: for sparse inputs, and for complex or sparse outputs.
        TypeError: if ``func`` is not callable.
        ValueError: if a differentiated input is no tensor.

    Example:
        >>> import torch
        >>> from torchjac import grad, jacobian
        >>> grad(lambda x: (x**2).sum())(torch.tensor([1.0, 2.0]))
        tensor([2., 4.])
        >>> jacobian(grad(lambda x: (x**3).sum()))(torch.ones(1_000_000)).kind
        'diagonal'

    Source:
        The calling convention is that of https://docs.pytorch.org/docs/stable/generated/torch.func.grad.html.
    """
    both = _gradient_and_value("grad", func, argnums, has_aux)

    @wraps(func)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


@overload
def grad_and_value(
    func: First[P, Tensor], argnums: Zero = 0, has_aux: No = False
) -> First[P, tuple[Tensor, Tensor]]: ...


@overload
def grad_and_value(
    func: First[P, tuple[Tensor, A]], argnums: Zero = 0, *, has_aux: Yes
) -> First[P, tuple[Tensor, tuple[Tensor, A]]]: ...


@overload
def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]: ...


def grad_and_value(
    func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Compute what `grad` computes, and the value of ``func`` by the same run of it.

    Args:
        func: as in `grad`.
        argnums: as in `grad`.
        has_aux: as in `grad`.

    Returns:
        A function of the same arguments that returns ``(gradient, value)``, or ``(gradient, (value, aux))``.

    Raises:
        RuntimeError: as `grad` does.
        NotImplementedError: as `grad` does.
        TypeError: as `grad` does.
        ValueError: as `grad` does.

    Example:
        >>> import torch
        >>> from torchjac import grad_and_value
        >>> grad_and_value(lambda x: (x**2).sum())(torch.tensor([1.0, 2.0]))
        (tensor([2., 4.]), tensor(5.))

    Source:
        The calling convention is that of
        https://docs.pytorch.org/docs/stable/generated/torch.func.grad_and_value.html.
    """
    return _gradient_and_value("grad_and_value", func, argnums, has_aux)


def _gradient_and_value(
    what: str, func: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool
) -> Callable[..., tuple[Any, Any]]:
    check_function(func, argnums, None, what)

    def of_real(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        result = func(*args, **kwargs)
        output, aux = split_aux(result, what) if has_aux else (result, None)
        if isinstance(output, Tensor) and output.dim() != 0:
            raise RuntimeError(
                f"{what}: the function must return a tensor of one number, of shape (), got shape "
                f"{tuple(output.shape)}; sum it, or take jacrev"
            )
        if not isinstance(output, Tensor):
            raise RuntimeError(
                f"{what}: the function must return a tensor of one number, got {output!r} of type "
                f"{type(output).__name__}"
            )
        return output, (output, aux) if has_aux else output

    real = reverse(what, of_real, argnums, True, None)
    theirs = functorch_grad_and_value(func, argnums, has_aux)

    @wraps(func)
    def gradient_and_value(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        # There one level more costs less than a capture; inside a capture of ours the graph is to keep its structure.
        if inside_functorch() and levels_now() is None:
            found: tuple[Any, Any] = theirs(*args, **kwargs)
            return found
        positions = check_argnums(argnums, len(args), what)
        chosen = chosen_arguments(args, argnums, positions)
        leaves, spec = pytree.tree_flatten(chosen)
        is_complex = [isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves]
        if not any(is_complex):
            found = real(*args, **kwargs)
            return found

        def turned(turn: Callable[[Tensor], Tensor], tree: Any) -> Any:
            flat = [
                turn(leaf) if is_one else leaf
                for leaf, is_one in zip(pytree.tree_leaves(tree), is_complex, strict=True)
            ]
            return pytree.tree_unflatten(flat, spec)

        def of_pairs(pairs: Any) -> tuple[Tensor, Any]:
            given = turned(torch.view_as_complex, pairs)
            return of_real(*put_arguments(args, argnums, positions, given), **kwargs)

        pairs, value = reverse(what, of_pairs, 0, True, None)(turned(torch.view_as_real, chosen))
        return turned(lambda pair: torch.view_as_complex(pair.contiguous()), pairs), value

    return gradient_and_value
