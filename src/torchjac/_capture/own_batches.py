"""Batching rules for ops that take a batch themselves: that of vmap is made theirs (torch 2.9-2.14).

Without a rule vmap calls them once for each sample, and the graph beneath has as many nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.library import Library, register_vmap

from .._torch import has_kernel

#: Of what vmap tells of itself, the batch dim of each argument, and the arguments: the results and their batch dims
Rule: TypeAlias = Callable[..., tuple[Any, Any]]

#: How a loss over samples is put together
_NONE, _MEAN, _SUM = range(3)


def register_own_batches(library: Library) -> None:
    """Register the rules that are lacking."""
    for name, rule in _RULES.items():
        if not has_kernel(f"aten::{name}", "FuncTorchBatched"):
            register_vmap(f"aten::{name}", rule, lib=library)


def _in_front(info: Any, in_dims: Sequence[int | None], args: Sequence[Any]) -> list[Any]:
    """Return the arguments with the batch dim of tensors in front; those without one get it."""
    found = []
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(arg, Tensor):
            arg = arg.expand(info.batch_size, *arg.shape) if dim is None else arg.movedim(dim, 0)
        found.append(arg)
    return found


def _log_ndtr(info: Any, in_dims: tuple[int, ...], x: Tensor) -> tuple[Any, Any]:
    return torch.special.log_ndtr(x), in_dims[0]


def _lu(info: Any, in_dims: tuple[int, ...], a: Tensor, pivot: bool = True) -> tuple[Any, Any]:
    return tuple(torch.ops.aten.linalg_lu.default(a.movedim(in_dims[0], 0), pivot=pivot)), (0, 0, 0)


def _pooling(op: Any, rank: int, several: bool) -> Rule:
    """Return the rule of a pooling: of tensors of a rank, or one more where they are batches of their own.

    The tensors of one that gives ``several`` begin with a batch in any case, but the first.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        x, *others = _in_front(info, in_dims, args)
        is_batch = x.dim() > rank + 1
        joined = [
            other.flatten(0, 1) if isinstance(other, Tensor) and (is_batch or several) else other
            for other in others
        ]
        results = op(x.flatten(0, 1) if is_batch else x, *joined)
        results = results if several else (results,)
        if is_batch:
            results = [result.unflatten(0, x.shape[:2]) for result in results]
        return (tuple(results), (0,) * len(results)) if several else (results[0], 0)

    return rule


def _reduced(losses: Tensor, reduction: int) -> Tensor:
    """Return the losses of a batch of samples, put together for each."""
    if reduction == _NONE:
        return losses
    each = losses.unsqueeze(-1).flatten(1)
    return each.mean(1) if reduction == _MEAN else each.sum(1)


def _multi_margin(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, target: Tensor, p: float = 1, margin: float = 1,
    weight: Tensor | None = None, reduction: int = _MEAN,
) -> tuple[Any, Any]:  # fmt: skip
    op = torch.ops.aten.multi_margin_loss.default
    if len(in_dims) > 4 and in_dims[4] is not None:
        raise RuntimeError("multi_margin_loss: vmap takes no weights that are batched")
    x, target = _in_front(info, in_dims[:2], (x, target))
    shape = x.shape[:-1]
    losses = op(x.flatten(0, -2), target.flatten(), p, margin, weight, _NONE)
    return _reduced(losses.view(shape), reduction), 0


def _multilabel_margin(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, target: Tensor, reduction: int
) -> tuple[Any, Any]:
    op = torch.ops.aten.multilabel_margin_loss_forward.default
    x, target = _in_front(info, in_dims[:2], (x, target))
    losses, is_target = op(x.flatten(0, -2), target.flatten(0, -2), _NONE)
    return (_reduced(losses.view(x.shape[:-1]), reduction), is_target.view(target.shape)), (0, 0)


_aten = torch.ops.aten
_RULES: dict[str, Rule] = {
    "special_log_ndtr": _log_ndtr,
    "linalg_lu": _lu,
    "max_unpool2d": _pooling(_aten.max_unpool2d.default, 3, False),
    "max_unpool3d": _pooling(_aten.max_unpool3d.default, 4, False),
    "fractional_max_pool2d": _pooling(_aten.fractional_max_pool2d.default, 3, True),
    "fractional_max_pool3d": _pooling(_aten.fractional_max_pool3d.default, 4, True),
    "multi_margin_loss": _multi_margin,
    "multilabel_margin_loss_forward": _multilabel_margin,
}
