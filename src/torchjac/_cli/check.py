"""Checks of a function's Jacobians: ours against the row-by-row loop and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._accumulate.progress import watched
from .._torch import pytree
from .._transforms.jacobian import jacobian
from .._transforms.jacrev import jacrev
from ..testing import finite_differences, loop_jacobian
from .errors import Stop
from .request import FunctionCall

#: Relative and absolute tolerance against the loop, by dtype; finite differences are taken in float64 only.
LOOP = {
    torch.float64: (1e-7, 1e-9),
    torch.float32: (1e-3, 1e-4),
    torch.bfloat16: (5e-2, 5e-2),
    torch.float16: (1e-2, 1e-2),
}
DIFFERENCES = (1e-5, 1e-5)


class Comparison(NamedTuple):
    """The largest difference of two Jacobians, and whether every entry is within its tolerance."""

    name: str
    difference: float
    right: bool


def compare(problem: FunctionCall, seed: int, progress: bool) -> list[Comparison]:
    """Return every output by every differentiated tensor, both ways of ours, against both oracles.

    Each call starts from the same seed, so that a function with dropout is the same one every time.

    Raises:
        Stop: where there is no floating-point tensor to differentiate.
    """
    leaves, spec = pytree.tree_flatten(problem.arguments)
    paths = [path for path, _ in pytree.tree_flatten_with_path(problem.arguments)[0]]
    number = [n for n, argument in enumerate(problem.arguments) for _ in pytree.tree_leaves(argument)]
    outputs, _ = pytree.tree_flatten_with_path(problem.value())
    compare_one = watched(_compare_one) if progress else _compare_one
    found: list[Comparison] = []
    for j, leaf in enumerate(leaves):
        if not (number[j] in problem.positions and isinstance(leaf, Tensor) and leaf.is_floating_point()):
            continue
        for k, (path, _) in enumerate(outputs):
            one = _one(problem.function, leaves, spec, j, k, seed)
            found += compare_one(f"output{pytree.keystr(path)} by args{pytree.keystr(paths[j])}", one, leaf)
    if not found:
        raise Stop(f"{problem.in_words()}: no floating-point tensor among what is differentiated")
    return found


def _one(
    function: Callable[..., Any], leaves: list[Any], spec: Any, j: int, k: int, seed: int
) -> Callable[[Tensor], Tensor]:
    """Return the k-th output tensor as a function of the j-th tensor among the arguments."""

    def one(leaf: Tensor) -> Tensor:
        torch.manual_seed(seed)
        copies = [other.clone() if isinstance(other, Tensor) else other for other in leaves]
        copies[j] = leaf
        output: Tensor = pytree.tree_leaves(function(*pytree.tree_unflatten(copies, spec)))[k]
        return output

    return one


def _compare_one(name: str, one: Callable[[Tensor], Tensor], at: Tensor) -> list[Comparison]:
    blocks, dense = jacobian(one)(at).to_dense(), jacrev(one)(at)
    loop = loop_jacobian(one, at)
    tolerance = LOOP.get(at.dtype, LOOP[torch.float32])
    found = [
        _difference(f"{name}, jacobian against the loop", blocks, loop, *tolerance),
        _difference(f"{name}, jacrev against the loop", dense, loop, *tolerance),
    ]
    if at.dtype == torch.float64:
        differenced = finite_differences(one, at)
        found.append(_difference(f"{name}, against finite differences", blocks, differenced, *DIFFERENCES))
    return found


def _difference(name: str, ours: Tensor, oracle: Tensor, rtol: float, atol: float) -> Comparison:
    if ours.shape != oracle.shape:
        raise AssertionError(
            f"{name}: shape {tuple(ours.shape)} for {tuple(oracle.shape)}; please report this"
        )
    gap = (ours - oracle).detach().abs()
    gap = gap[~(ours == oracle) & ~(ours.isnan() & oracle.isnan())]
    largest = float(gap.max()) if gap.numel() else 0.0
    return Comparison(name, largest, torch.allclose(ours, oracle, rtol, atol, equal_nan=True))
