"""jacfwd: the Jacobian of a function of tensors, accumulated from the inputs up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor

from .._capture.state import undisturbed
from .call_function import check_function, record
from .dense import dense_jacobians
from .dynamo import seen_by_tracers

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .overloads import Both, First, JacfwdOptions, No, P, Pair, Zero


RANDOMNESS = ("error", "different", "same")


@overload
def jacfwd(
    func: First[P, Tensor], argnums: Zero = 0, has_aux: No = False, **options: Unpack[JacfwdOptions]
) -> First[P, Tensor]: ...


@overload
def jacfwd(
    func: Both[P, Tensor], argnums: Pair, has_aux: No = False, **options: Unpack[JacfwdOptions]
) -> Both[P, tuple[Tensor, Tensor]]: ...


@overload
def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    **options: Unpack[JacfwdOptions],
) -> Any: ...


def jacfwd(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """Compute the Jacobian of ``func`` with respect to the arguments at ``argnums``, accumulated from the inputs up.

    For ``y = func(x)`` the answer is ``J[o…, i…] = ∂y[o…] / ∂x[i…]``, as `jacrev` gives it. The local Jacobians
    are those that autograd recorded, multiplied in the other order: what is carried has a column for each entry
    of the input and not a row for each of the output, which is cheaper where there are far fewer inputs.
    (`jacrev` and `jacobian` find that out by themselves; here too another order is taken where it takes less time.)

    Differs from `torch.func.jacfwd`, whose calling convention it has:

    - ops need a backward formula and not a forward one, and an inner `torch.no_grad` counts; where PyTorch's two say
      different things (`max_unpool` with an index twice, `cholesky` and `eigh` of a matrix that is not symmetric) the
      answer is what the backward one says;
    - the dtype is always that of the output (PyTorch 2.13 gives float64 for some functions of float32 tensors);
    - ``func`` is called once, outside any vmap, so random ops are drawn once whatever ``randomness`` says, and "error"
      raises none.

    Args:
        func: as for `jacrev`.
        argnums: as for `jacrev`.
        has_aux: as for `jacrev`.
        randomness: "error", "different" or "same", as `torch.func.jacfwd` takes it; see above.

    Returns:
        A function of the same arguments, which returns the Jacobian in trees as `jacrev` does, each tensor in
        the output's dtype: of an integer or boolean output zeros. It is differentiable as that of `jacrev` is.

    Raises:
        RuntimeError: as `jacrev` does, but for integer and boolean outputs.
        NotImplementedError: as `jacrev` does.
        TypeError: if ``func`` is not callable.
        ValueError: if ``randomness`` is none of these, or as `jacrev` does.

    Example:
        >>> import torch
        >>> from torchjac import jacfwd
        >>> jacfwd(lambda x: torch.stack([x.sum(), x.prod()]))(torch.tensor([2.0, 3.0]))
        tensor([[1., 1.],
                [3., 2.]])

    Source:
        The calling convention is that of https://docs.pytorch.org/docs/stable/generated/torch.func.jacfwd.html.
    """
    check_function(func, argnums, None, "jacfwd")
    if randomness not in RANDOMNESS:
        raise ValueError(
            f"jacfwd: randomness must be one of {', '.join(map(repr, RANDOMNESS))}, got {randomness!r}"
        )

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        with undisturbed():
            recorded = record("jacfwd", func, argnums, has_aux, args, kwargs)
            return recorded.finish(dense_jacobians(recorded, None, "forward"), has_aux)

    return seen_by_tracers("jacfwd", func, jacobian_of, ("forward", argnums, has_aux, None))
