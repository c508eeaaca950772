"""Facts about an op and its arguments, which a dispatch mode asks before it runs it."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._torch import disable_current_modes

Args: TypeAlias = tuple[Any, ...]
KeywordArgs: TypeAlias = dict[str, Any]

#: Ops that are given a list of index tensors, among which may be masks.
READ_BY_MASK = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten._unsafe_index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._unsafe_index_put.default,
    torch.ops.aten._index_put_impl_.default,
}

#: Tags of ops that look at values: their results, or the shapes of these, cannot be known without.
LOOKS_AT_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


def targets_of(func: Any, args: Args, kwargs: KeywordArgs) -> list[Tensor]:
    """Return the tensors that an op writes into."""
    if not func._schema.is_mutable:
        return []
    named = zip(func._schema.arguments, args, strict=False)
    given = [(argument, value) for argument, value in named]
    given += [(a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs]
    return [
        value
        for argument, value in given
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor)
    ]


def view_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return the entries of a flat tensor that another has of the same memory, as a view.

    By slices wherever that can be: Inductor takes a write through `as_strided` for one that nobody reads across.
    """
    size, start = like.numel(), like.storage_offset()
    if like.is_contiguous():
        return whole[start : start + size].view(like.shape)
    if like.dim() == 1:
        return whole[start :: like.stride(0)][:size]
    view: Tensor = torch.ops.aten.as_strided.default(whole, like.shape, like.stride(), start)
    return view


def is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def makes_integers(func: Any, args: Args, kwargs: KeywordArgs) -> bool:
    """Return whether an op without tensors makes integers or booleans (arange, zeros of int64)."""
    if all(argument.name != "device" for argument in func._schema.arguments):  # promote_types is an op too
        return False
    if (
        func is torch.ops.aten._efficientzerotensor.default
    ):  # a number's tangent, which has no values to compute with
        return False
    with disable_current_modes():
        made = func(*args, **{**kwargs, "device": "meta"})
    return isinstance(made, Tensor) and not (made.dtype.is_floating_point or made.dtype.is_complex)
