"""Arguments of the Jacobian transforms: argnums, trees of tensors, auxiliary output, and their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.nn import Parameter

from .._blocks.tracing import is_tracing
from .._torch import FakeTensor, pytree

#: The dtypes of nearly every tensor
_TAKEN = frozenset((torch.float32, torch.float64))

#: The tree that is one leaf
LEAF = pytree.tree_structure(0)


#: The leaves a Jacobian is taken with respect to, and how to rebuild the argument from them
Differentiated: TypeAlias = tuple[list[Tensor], Any]


def check_argnums(argnums: Any, count: int, what: str) -> tuple[int, ...]:
    """Return the differentiated positions as non-negative ints; argnums may be an int or a tuple of ints."""
    if type(argnums) is int and 0 <= argnums < count:  # nearly every call
        return (argnums,)
    given = (argnums,) if isinstance(argnums, int) and not isinstance(argnums, bool) else argnums
    if not isinstance(given, tuple) or any(not isinstance(n, int) or isinstance(n, bool) for n in given):
        raise RuntimeError(
            f"{what}: argnums must be an int or a tuple of ints, got {argnums!r} of type "
            f"{type(argnums).__name__}"
        )
    if not given:
        raise RuntimeError(f"{what}: argnums is an empty tuple; name at least one argument to differentiate")
    if count == 0:
        raise RuntimeError(
            f"{what}: argnums names positional arguments, and none was given; keyword arguments are not differentiated"
        )
    for n in given:
        if not -count <= n < count:
            raise RuntimeError(
                f"{what}: argnums {n} is out of range for {count} positional "
                f"argument{'s' * (count != 1)}; it must be in [{-count}, {count})"
            )
    wrapped = tuple(n % count for n in given)
    if len(set(wrapped)) < len(wrapped):
        raise RuntimeError(
            f"{what}: argnums must be different arguments, got {argnums!r} for {count} of them"
        )
    return wrapped


def chosen_arguments(args: tuple[Any, ...], argnums: Any, positions: tuple[int, ...]) -> Any:
    """Return the differentiated argument, or the tuple of them."""
    return args[positions[0]] if isinstance(argnums, int) else tuple([args[n] for n in positions])


def differentiated(
    args: tuple[Any, ...], argnums: Any, positions: tuple[int, ...], what: str
) -> Differentiated:
    """Return the tensors of the differentiated arguments; raises where one is no real floating-point tensor."""
    leaves, spec = flatten(chosen_arguments(args, argnums, positions))
    for leaf in leaves:
        check_leaf(leaf, what, "input")
    return leaves, spec


def check_leaf(leaf: Any, what: str, side: str) -> None:
    """Raise unless a leaf is a dense floating-point tensor; the exceptions are of torch.func's types."""
    if type(leaf) is Tensor and leaf.dtype in _TAKEN and leaf.layout is torch.strided and not leaf.is_nested:
        return  # nearly every leaf
    if not isinstance(leaf, Tensor):
        got, error = (
            f"{leaf!r} of type {type(leaf).__name__}",
            ValueError if side == "input" else RuntimeError,
        )
        hint = "return anything else as aux, with has_aux=True"
        if side == "input":
            number = isinstance(leaf, (int, float, complex, numpy.number))
            hint = (
                "make it with torch.tensor"
                if number
                else "give a tensor, or a tuple, list or dict of tensors"
            )
        if isinstance(leaf, numpy.ndarray):
            got = f"a NumPy array of shape {leaf.shape} and {leaf.dtype}"
            hint = (
                "use torch.from_numpy"
                if side == "input"
                else "NumPy has no derivatives: compute it with torch"
            )
        if isinstance(leaf, torch.nn.Module):
            got, hint = (
                f"a module, {type(leaf).__name__}",
                "functional_call makes it a function of its parameters",
            )
        raise error(f"{what}: every differentiated {side} must be a tensor, got {got}; {hint}")
    sharded = sys.modules.get("torch.distributed.tensor")  # never imported here
    if isinstance(leaf, getattr(sharded, "DTensor", ())):
        raise NotImplementedError(
            f"{what}: a differentiated {side} is a DTensor of shape {tuple(leaf.shape)}, sharded over ranks; "
            "torchjac.distributed.jacobian takes it, and gives a Jacobian that is sharded too; full_tensor() gathers it"
        )
    if leaf.is_nested:
        raise NotImplementedError(
            f"{what}: every differentiated {side} must be a dense tensor, got a nested one of {leaf.size(0)} parts; "
            "differentiate by its values, or by a list of its parts"
        )
    if isinstance(leaf, FakeTensor) and not is_tracing():
        raise RuntimeError(
            f"{what}: a differentiated {side} is a fake tensor, which has no values, of shape {tuple(leaf.shape)}; "
            "call the function inside the FakeTensorMode that made it"
        )
    if leaf.is_complex():
        raise NotImplementedError(
            f"{what}: complex {side}s are not supported yet, got {leaf.dtype} of shape {tuple(leaf.shape)}; "
            "use torch.view_as_real"
        )
    # Forward mode carries tangents of whatever comes out; those of integers are zeros, as in torch.func.jacfwd.
    if not leaf.is_floating_point() and (what, side) != ("jacfwd", "output"):
        raise RuntimeError(
            f"{what}: every differentiated {side} must be a floating-point tensor, got {leaf.dtype} of shape "
            f"{tuple(leaf.shape)}; convert it, or leave it out of the differentiation"
        )
    if leaf.layout is not torch.strided:
        raise NotImplementedError(
            f"{what}: every differentiated {side} must be a dense tensor, got layout {leaf.layout}; "
            "use its values or to_dense()"
        )


def put_arguments(
    args: tuple[Any, ...], argnums: Any, positions: tuple[int, ...], chosen: Any
) -> tuple[Any, ...]:
    """Return the arguments with the differentiated ones replaced."""
    if isinstance(argnums, int):
        (n,) = positions
        return (*args[:n], chosen, *args[n + 1 :])
    replaced = list(args)
    for n, value in zip(positions, chosen, strict=True):
        replaced[n] = value
    return tuple(replaced)


def split_aux(result: Any, what: str) -> tuple[Any, Any]:
    """Return the output to differentiate and the auxiliary one."""
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"{type(result).__name__}"
        raise RuntimeError(
            f"{what}: with has_aux=True the function must return a pair (output, aux), got {got}"
        )
    return result


def check_outputs(outputs: Any, what: str) -> tuple[list[Tensor], Any]:
    """Return the tensors of the output tree; raises where there is none or one cannot be differentiated."""
    leaves, spec = flatten(outputs)
    if not leaves:
        raise RuntimeError(
            f"{what}: the function returned no tensor ({outputs!r}); there is nothing to differentiate"
        )
    for leaf in leaves:
        check_leaf(leaf, what, "output")
    return leaves, spec


def nest(leaves: Sequence[Sequence[Any]], out_spec: Any, in_spec: Any) -> Any:
    """Return rows of answers as the output tree holding trees like the differentiated argument."""
    if in_spec is LEAF and out_spec is LEAF:
        return leaves[0][0]
    rows = [unflatten(row, in_spec) for row in leaves]
    return unflatten(rows, out_spec)


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return the leaves of a tree, and what `unflatten` takes to put others in their places.

    Nearly every tree is a tensor, or a list, a tuple or a dict of them: its type tells all, or its keys.
    """
    kind = type(tree)
    if kind is Tensor:
        return [tree], LEAF
    if kind is list or kind is tuple or kind is dict:
        leaves = list(tree.values()) if kind is dict else list(tree)
        for leaf in leaves:
            if type(leaf) is not Tensor and type(leaf) is not Parameter:
                break
        else:
            return leaves, tuple(tree) if kind is dict else kind
    return pytree.tree_flatten(tree)


def unflatten(leaves: Sequence[Any], spec: Any) -> Any:
    """Return a tree like the one that was flattened, with other leaves."""
    if spec is LEAF:
        return leaves[0]
    if spec is list or spec is tuple:
        return spec(leaves)
    if type(spec) is tuple:
        return dict(zip(spec, leaves, strict=True))
    return pytree.tree_unflatten(leaves, spec)


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Return a tree with a function applied to its tensors; anything else as it is."""
    return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)
