"""Batching rules that vmap lacks (torch 2.9-2.14): without one it calls an op once for each sample, or refuses it.

At a level of grad, where torch.func runs a function, PyTorch composes some ops of others; beneath vmap there is no such
level, and the graph would be that of the loop. The laws are those by which PyTorch has rules for other ops: an op that
is composed of others is composed of them, one in place copies what the op out of place gives, and a few are decomposed.
They are registered once in a process, at the first call inside vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from .._torch import all_op_names, decompositions, has_kernel
from .own_batches import register_own_batches

#: Where a batching rule stands, and one that decomposes
_RULE, _DECOMPOSED = "FuncTorchBatched", "FuncTorchBatchedDecomposition"

#: Parts of names of ops that are left alone: what they give is no strided tensor, values decide its shape, or they look
#: at values, which only a call for each sample can, or they are told to a tensor and compute nothing
_OTHERS = (
    "_backward_hook", "argwhere", "coalesce", "conj", "ctc_loss", "data", "dense", "detach", "fbgemm", "grad",
    "histogram", "istft", "nested", "nonzero", "pad_sequence", "pin_memory", "qparams", "quantize", "rrelu", "set_",
    "smm", "sparse", "spadd", "strided",
)  # fmt: skip

#: The library that holds the rules, once they are registered
_registered: list[Library] = []


def complete_rules() -> None:
    """Register the rules, if they are not."""
    if _registered:
        return
    library = Library("aten", "IMPL")
    for name, function, key in (*_made(), *_rules()):
        if not has_kernel(f"aten::{name}", key):
            library.impl(name, function, key)
    register_own_batches(library)
    _registered.append(library)  # last: one that an interrupt drops takes its rules along


def _made() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Yield ops with a kernel of their own, and functions that are the same, with the same derivatives."""
    yield "bilinear", _bilinear, _DECOMPOSED
    yield "take", _take, _DECOMPOSED
    yield "put", _put, _DECOMPOSED
    yield "_pdist_forward", _pdist, _DECOMPOSED
    table = decompositions()
    for name in ("affine_grid_generator", "masked_fill.Tensor", "renorm"):
        yield name, table[_overload(name)], _RULE


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.einsum("...i,oij,...j->...o", a, weight, b)
    return product if bias is None else product + bias


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten()[index]


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    return x.flatten().index_put((index.flatten(),), source.flatten(), accumulate).view(x.shape)


def _pdist(x: Tensor, p: float = 2) -> Tensor:
    i, j = torch.triu_indices(x.shape[0], x.shape[0], 1, device=x.device)
    difference = x[i] - x[j]
    found: Tensor = torch.linalg.vector_norm(difference, p, -1)
    if p != inf:
        return found
    # Where entries are equally large, each has the derivative; the norm's own would share it out.
    entries = difference.abs()
    total: Tensor = entries.masked_fill(entries != found.unsqueeze(-1), 0).sum(-1)
    return total - (total - found).detach()


def _rules() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """Yield ops that are made of others, what makes them, and where that is registered."""
    names = set(all_op_names())
    for full in names:
        name = full.removeprefix("aten::")
        if name is full or name[0] == "_" or any(part in name for part in _OTHERS):
            continue
        base = _out_of_place(full)
        composed = has_kernel(full, "CompositeImplicitAutograd")
        if _is_batched(full) or not (composed or (base in names and _is_batched(base))):
            continue
        if _gives_tensors(op := _overload(name)):
            yield (name, op.decompose, _DECOMPOSED) if composed else (name, _in_place(base), _RULE)


def _gives_tensors(op: Any) -> bool:
    """Return whether an op gives tensors alone, and takes none to write them into."""
    found, arguments = op._schema.returns, op._schema.arguments
    return (
        bool(found)
        and all(str(each.type) == "Tensor" for each in found)
        and not any(a.is_out for a in arguments)
    )


def _is_batched(full: str) -> bool:
    return has_kernel(full, _RULE) or has_kernel(full, _DECOMPOSED)


def _out_of_place(full: str) -> str:
    """Return the name of what an op in place does out of place; nothing for another op."""
    packet, dot, overload = full.partition(".")
    return packet[:-1] + dot + overload if packet[-1] == "_" else ""


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _in_place(base: str) -> Callable[..., Tensor]:
    op = _overload(base.removeprefix("aten::"))

    def written(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor.copy_(op(tensor.clone(), *args, **kwargs))  # a clone: what the op saves stays as it is

    return written
