"""Formulas that take many cotangents at once, in a dim of rows in front of the node's own.

A pointwise formula multiplies the cotangent with tensors that broadcast against it, so it takes any dims in front; a
re-indexing moves dims, all by one here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from .._capture.tape import Node
from .._plan.recording import have_shape
from .einsum_notation import ones
from .losses import POINTWISE_LOSSES
from .pointwise import POINTWISE, WITH_FACTORS
from .slice_cat_pad import cat_starts

Results: TypeAlias = Sequence[Tensor | None]
#: Of a node, how many rows there are, and those of each output (the one of a node with one output is a tensor); None
#: where it does not apply
Formula: TypeAlias = Callable[..., Results | None]

#: Pointwise ops whose formula is a kernel that takes a cotangent of the output's shape only (that of GELU in float32),
#: or that then resizes an output of its own, which PyTorch deprecates (2.13)
ONE_SHAPE = [
    "BinaryCrossEntropyBackward", "FusedDropout", "Gelu", "HuberLossBackward", "LogSigmoid", "MseLossBackward",
    "NativeDropout", "PreluKernel", "PreluKernelBackward", "RreluWithNoise", "SmoothL1LossBackward",
    "SoftMarginLossBackward",
]  # fmt: skip

#: Nodes whose formula takes rows in front as it is
BROADCAST = frozenset(
    [f"{stem}Backward{k}" for stem in POINTWISE if stem not in ONE_SHAPE for k in range(3)]
    + WITH_FACTORS
    + ["TrilBackward0", "TriuBackward0"]
)

FORMULAS: dict[str, Formula] = {}

#: Those of nodes whose own formula, for a single row, is one call for many ops here
OF_SEVERAL: set[str] = set()

#: Formulas that take a few of the cotangents that a node may be called on: a planner does not count on them
OF_SOME: dict[str, Formula] = {}


def formula(*names: str, several: bool = False) -> Callable[[Formula], Formula]:
    """Register a formula for the nodes of these names, for ``several`` rows only or for any number."""

    def register(function: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(names, function))
        if several:
            OF_SEVERAL.update(names)
        return function

    return register


@formula(*BROADCAST)
def _broadcast(node: Node, count: int, rows: Tensor) -> Results | None:
    found = node.vjp(rows)
    results: Results = found if type(found) is tuple else (found,)
    # One that is made without looking at the cotangent has another shape.
    return results if have_shape(results, (count, *node.shape)) else None


def dim_of(node: Node, name: str, rank: int) -> int:
    """Return a saved dim of a tensor, as the dim of its rows."""
    dim: int = node.saved(name) % max(rank, 1) + 1
    return dim


@formula(*(f"{stem}Backward{k}" for stem in ONE_SHAPE for k in range(3)), *POINTWISE_LOSSES)
def _multiplied(node: Node, count: int, *cotangents: Tensor | None) -> Results | None:
    if len(cotangents) > 1:
        return None
    (rows,) = cotangents
    results = node.vjp(ones(node))
    if type(results) is not tuple:
        results = (results,)
    if not have_shape(results, node.shape):  # it was reduced
        return None
    return [None if result is None else rows * result for result in results]


@formula(
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1",
    "SqueezeBackward2", "SqueezeBackward3", "SqueezeBackward4", "SqueezeBackward5", "UnsqueezeBackward0",
    "UnsqueezeBackward1",
)  # fmt: skip
def _view(node: Node, count: int, rows: Tensor) -> Results:
    return [rows.reshape(count, *node.into(0).shape)]


@formula("ToCopyBackward0")
def _to_copy(node: Node, count: int, rows: Tensor) -> Results:
    _, dtype, device = node.into(0)
    real = rows.real if rows.is_complex() and not dtype.is_complex else rows
    return [real.to(device, dtype)]


@formula("torch::autograd::CopyBackwards")
def _copy(node: Node, count: int, rows: Tensor) -> Results:
    return [None, rows.to(node.into(1).device) if node.needs(1) else None]


@formula("RepeatBackward0")
def _repeat(node: Node, count: int, rows: Tensor) -> Results:
    repeats, shape = node.saved("repeats"), node.into(0).shape
    lead = len(repeats) - len(shape)
    split = [(repeat, 1) for repeat in repeats[:lead]] + [*zip(repeats[lead:], shape, strict=True)]
    parts = rows.reshape(count, *chain.from_iterable(split))
    summed = [1 + 2 * k for k, (repeat, _) in enumerate(split) if repeat != 1]
    return [(parts.sum(summed) if summed else parts).reshape(count, *shape)]


@formula("ExpandBackward0")
def _expand(node: Node, count: int, rows: Tensor) -> Results:
    return [rows]


@formula("TransposeBackward0", "TransposeBackward1")
def _transpose(node: Node, count: int, rows: Tensor) -> Results:
    rank = len(node.shape)
    return [rows.transpose(dim_of(node, "dim0", rank), dim_of(node, "dim1", rank)) if rank else rows]


@formula("TBackward0")
def _t(node: Node, count: int, rows: Tensor) -> Results:
    return [rows.transpose(1, 2) if len(node.shape) == 2 else rows]


@formula("PermuteBackward0")
def _permute(node: Node, count: int, rows: Tensor) -> Results:
    dims = [dim % len(node.shape) for dim in node.saved("dims")]
    return [rows.permute(0, *(dims.index(dim) + 1 for dim in range(len(dims))))]


@formula("FlipBackward0")
def _flip(node: Node, count: int, rows: Tensor) -> Results:
    rank = len(node.shape)
    return [rows.flip([dim % rank + 1 for dim in node.saved("dims")]) if rank else rows]


@formula("RollBackward0")
def _roll(node: Node, count: int, rows: Tensor) -> Results:
    shifts, dims = node.saved("shifts"), node.saved("dims")
    if not dims:  # the flattened tensor is rolled
        return [rows.unsqueeze(-1).flatten(1).roll(-shifts[0], 1).view(rows.shape)]
    return [rows.roll([-shift for shift in shifts], [dim % len(node.shape) + 1 for dim in dims])]


@formula("CumsumBackward0")
def _cumsum(node: Node, count: int, rows: Tensor) -> Results:
    if not node.shape:
        return [rows]
    dim = dim_of(node, "dim", len(node.shape))
    return [rows.flip(dim).cumsum(dim).flip(dim)]


@formula("SoftmaxBackward0", "LogSoftmaxBackward0", "SafeSoftmaxBackward0")
def _softmax(node: Node, count: int, rows: Tensor) -> Results:
    if not node.shape:  # a constant
        return [torch.zeros_like(rows)]
    dim, result = dim_of(node, "dim", len(node.shape)), node.saved("result")
    if node.name.startswith("Log"):
        return [rows - result.exp() * rows.sum(dim, keepdim=True)]
    scaled = rows * result
    return [scaled - result * scaled.sum(dim, keepdim=True)]


#: Reductions in which each entry of the input goes into one of the output
REDUCTIONS = [
    "AmaxBackward0", "AminBackward0", "LogsumexpBackward0", "ProdBackward0", "ProdBackward1", "StdBackward0",
    "VarBackward0",
]  # fmt: skip


@formula(*REDUCTIONS)
def _reduced(node: Node, count: int, rows: Tensor) -> Results | None:
    factor = node.vjp(ones(node))
    if factor is None or factor.shape != node.into(0).shape:
        return None
    dims = node.saved("dim") if hasattr(node.fn, "_saved_dim") else None
    over = [dims] if isinstance(dims, int) else dims or range(factor.dim())
    summed = {dim % factor.dim() for dim in over} if factor.dim() else ()
    kept = [1 if dim in summed else size for dim, size in enumerate(factor.shape)]
    rows = rows.reshape(count, *kept)
    if node.name == "StdBackward0":  # what arrives where it is 0 is dropped, infinite or not
        rows = rows.masked_fill(node.saved("result").reshape(kept) == 0, 0)
    return [rows * factor]


@formula("SliceBackward0")
def _slice(node: Node, count: int, rows: Tensor) -> Results:
    shape = node.into(0).shape
    window = dim_of(node, "dim", len(shape)), node.saved("start") or 0, node.saved("end"), node.saved("step")
    return [torch.ops.aten.slice_backward.default(rows, (count, *shape), *window)]


@formula("SelectBackwardBackward0")
def _select_backward(node: Node, count: int, rows: Tensor) -> Results:
    return [rows.select(dim_of(node, "dim", len(node.shape)), node.saved("index"))]


@formula("SliceBackwardBackward0")
def _slice_backward(node: Node, count: int, rows: Tensor) -> Results:
    window = node.saved("start"), node.saved("end"), node.saved("step")
    return [torch.ops.aten.slice.Tensor(rows, dim_of(node, "dim", len(node.shape)), *window)]


@formula("UnbindBackward0")
def _unbind(node: Node, count: int, *cotangents: Tensor | None) -> Results:
    return [torch.stack(_filled(node, count, cotangents), dim_of(node, "dim", len(node.shape) + 1))]


def _filled(node: Node, count: int, cotangents: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the cotangents of all outputs, zeros where none came."""
    return [
        torch.zeros((count, *meta.shape), dtype=meta.dtype, device=meta.device) if rows is None else rows
        for rows, meta in zip(cotangents, node.outputs, strict=True)
    ]


@formula("StackBackward0")
def _stack(node: Node, count: int, rows: Tensor) -> Results:
    return rows.unbind(dim_of(node, "dim", len(node.shape)))


@formula("SplitBackward0", "SplitWithSizesBackward0", "UnsafeSplitBackward0", "UnsafeSplitWithSizesBackward0")
def _split(node: Node, count: int, *cotangents: Tensor | None) -> Results:
    return [torch.cat(_filled(node, count, cotangents), dim_of(node, "dim", len(node.shape)))]


@formula("CatBackward0")
def _cat(node: Node, count: int, rows: Tensor) -> Results:
    dim = node.saved("dim") % len(node.shape)
    return [
        rows.narrow(dim + 1, start, node.into(k).shape[dim])
        if start is not None and len(node.into(k).shape) == len(node.shape)  # an empty (0,) joins any shape
        else None
        for k, start in enumerate(cat_starts(node, dim))
    ]


@formula("SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1")
def _sum(node: Node, count: int, rows: Tensor) -> Results:
    shape = node.into(0).shape
    over = (node.saved("dim") if node.name.endswith("1") else None) or range(len(shape))
    summed = {dim % len(shape) for dim in over} if shape else ()
    kept = [1 if dim in summed else size for dim, size in enumerate(shape)]
    rows = rows.reshape(count, *kept)
    if node.name.startswith("Mean"):
        rows = rows / prod(shape[dim] for dim in summed)
    return [rows.expand(count, *shape)]
