"""The signature of a captured program: shapes, kinds and static values of the arguments, and the modes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._torch import function_mode_count, is_any_autocast_enabled, privateuse1_backend_name, pytree
from .snapshot import exact
from .trusted_code import PLAIN

_KINDS = frozenset([Tensor, torch.nn.Parameter])

#: See `kind_of`.
TensorKey: TypeAlias = tuple[Hashable, ...]


class Call(NamedTuple):
    """The arguments of a call: its tensors; all leaves with None in the tensors' places; the tree; the key.

    Where there are tensors only, none of them in a tree, ``leaves`` and ``spec`` are None.
    """

    tensors: list[Tensor]
    leaves: list[Any] | None
    spec: Any
    key: Hashable


def read_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return the signature of a call.

    Raises:
        TypeError: where an argument is neither a tensor nor hashable.
    """
    if not kwargs and _KINDS.issuperset(map(type, args)):
        tensors = list(args)
        return Call(tensors, None, None, (_modes(), _kinds(tensors)))
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    static = tuple([None if isinstance(leaf, Tensor) else _static_key(leaf) for leaf in leaves])
    leaves = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return Call(tensors, leaves, spec, (_modes(), _kinds(tensors), spec, static))


#: Stands where a tensor was among the leaves.
_HERE = object()


def put_back(call: Call, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with other tensors."""
    if call.leaves is None:
        return tuple(tensors), {}
    given = iter(tensors)
    args, kwargs = pytree.tree_unflatten(
        [next(given) if leaf is _HERE else leaf for leaf in call.leaves], call.spec
    )
    return args, kwargs


def check_call(call: Call) -> None:
    """Raise unless all tensors are plain ones.

    Raises:
        NotImplementedError: for tensors that are not dense, of a subclass, or conjugated without a copy.
    """
    for tensor in call.tensors:
        if type(tensor) not in _KINDS or tensor.layout is not torch.strided:
            raise NotImplementedError(
                f"compile: every tensor argument must be a dense torch.Tensor, got {type(tensor).__name__} of "
                f"layout {tensor.layout} and shape {tuple(tensor.shape)}; call the function itself"
            )


def _kinds(tensors: Sequence[Tensor]) -> tuple[Hashable, ...]:
    """Return all that a program depends on of its arguments except their values."""
    return tuple([
        (
            type(t), t.shape, t.layout is torch.strided and t.stride(), t.dtype, t.device,
            t.requires_grad, t.is_conj(), t.is_neg(),
        )
        for t in tensors
    ])  # fmt: skip


def without_sizes(key: Any) -> Hashable:
    """Return the key of a call as it is for tensors of any sizes."""
    modes, kinds, *others = key
    return modes, tuple([(kind, len(shape), *rest) for kind, shape, _, *rest in kinds]), *others


def kind_of(tensor: Tensor) -> TensorKey:
    """Return what may change of a tensor that is kept by reference: ``tensor.data = other`` puts another there."""
    strides = tensor.layout is torch.strided and tensor.stride()
    return tensor.dtype, tensor.shape, strides, tensor.device, tensor.requires_grad


def _modes() -> Hashable:
    """Return the modes around a call that change what a function does."""
    autocast: Hashable = None
    if is_any_autocast_enabled():
        kinds = {"cpu", "cuda", privateuse1_backend_name()}
        autocast = tuple([
            (kind, torch.get_autocast_dtype(kind)) for kind in sorted(kinds) if torch.is_autocast_enabled(kind)
        ])  # fmt: skip
    device = torch.get_default_device() if function_mode_count() else None
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        autocast,
        device,
    )


def _static_key(leaf: Any) -> Hashable:
    """Equal only for arguments with which a function does the same: 1, 1.0 and True are three.

    Objects are told by their identity, but for those that are their fields: equality may leave out what is read.
    """
    try:
        hash(leaf)
    except TypeError:
        raise TypeError(
            "compile: an argument that is no tensor must be hashable, since the program is captured for its value; "
            f"got {leaf!r} of type {type(leaf).__name__}"
        ) from None
    if isinstance(leaf, PLAIN):
        return type(leaf), exact(leaf)
    if isinstance(leaf, frozenset):
        return type(leaf), frozenset(map(_static_key, leaf))
    if isinstance(leaf, (type, FunctionType)):
        return type(leaf), leaf
    if is_dataclass(leaf):
        return type(leaf), tuple([_static_key(getattr(leaf, field.name)) for field in fields(leaf)])
    return type(leaf), id(leaf)  # the program keeps it alive
