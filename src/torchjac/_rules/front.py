"""Many cotangents at once without vmap: formulas that take them with a dim of rows in front of the node's own.

On small tensors vmap costs several times what the arithmetic does. A pointwise formula multiplies the cotangent with
tensors that broadcast against it, so it takes any dims in front; a re-indexing moves dims, all by one here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from .._capture.capture import map_rows
from .._capture.tape import Edge, Meta, Node
from .anew import anew, is_anew
from .call import call, fit
from .losses import POINTWISE_LOSSES
from .pieces import cat_starts
from .pointwise import POINTWISE, WITH_FACTORS
from .spell import ones

Results: TypeAlias = Sequence[Tensor | None]
#: Of a node, its cotangents and how many rows they have; None where it does not apply
Formula: TypeAlias = Callable[[Node, Sequence[Tensor | None], int], Results | None]

#: Pointwise ops whose formula is a kernel that takes a cotangent of the output's shape only, or that then resizes an
#: output of its own, which PyTorch deprecates (2.13)
ONE_SHAPE = [
    "BinaryCrossEntropyBackward", "FusedDropout", "HuberLossBackward", "LogSigmoid", "MseLossBackward",
    "NativeDropout", "PreluKernel", "PreluKernelBackward", "RreluWithNoise", "SmoothL1LossBackward",
    "SoftMarginLossBackward",
]  # fmt: skip

#: Nodes whose formula takes rows in front as it is
BROADCAST = frozenset(
    [f"{stem}Backward{k}" for stem in POINTWISE if stem not in ONE_SHAPE for k in range(3)] + WITH_FACTORS
)

FORMULAS: dict[str, Formula] = {}


def _formula(*names: str) -> Callable[[Formula], Formula]:
    def register(function: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(names, function))
        return function

    return register


def goes_in_front(name: str) -> bool:
    """Whether nodes of this name have a formula here."""
    return name in BROADCAST or name in FORMULAS or is_anew(name)


def take_through(node: Node, pending: dict[Edge, Tensor], count: int) -> None:
    """Take the ``count`` cotangents that wait at a node, a dim in front of their own, to the tensors below it."""
    shape: Sequence[int] | None = None
    if len(node.outputs) == 1:  # nearly every node: on a tiny graph each microsecond counts
        rows = pending.pop((node, 0), None)
        if rows is None:
            return
        cotangents = [rows]
    else:
        cotangents = [pending.pop((node, slot), None) for slot in range(len(node.outputs))]
        if all(rows is None for rows in cotangents):
            return
    results: Results | None = None
    if node.name in BROADCAST:
        results, shape = _broadcast(node, rows), node.shape
    elif node.name in FORMULAS:
        results = FORMULAS[node.name](node, cotangents, count)
    elif is_anew(node.name):
        # Of one row PyTorch records its own formula as one node.
        results = None if count == 1 and torch.is_grad_enabled() else anew(node, cotangents)
    if results is None:
        results = _mapped(node, cotangents) if count > 1 else _alone(node, cotangents)
    else:
        node.calls += 1
    for edge, result in zip(node.inputs, results, strict=False):
        if edge is not None and result is not None:
            below, slot = edge
            meta = below.outputs[slot]
            if meta.shape != shape or result.dtype is not meta.dtype:
                result = _fit(result, meta, count)
            other = pending.get(edge)
            pending[edge] = result if other is None else other + result


def _broadcast(node: Node, rows: Tensor) -> Results | None:
    results = node.fn(rows)
    if type(results) is not tuple:
        results = (results,)
    for result in results:
        if result is not None and result.shape != rows.shape:  # made without looking at the cotangent
            return None
    return results


def _fit(result: Tensor, meta: Meta, count: int) -> Tensor:
    """What `fit` does, with rows in front."""
    shape = (count, *meta.shape)
    if result.shape != shape:
        result = result.sum_to_size((count, *(1,) * (result.dim() - len(shape)), *meta.shape)).view(shape)
    return result if result.dtype is meta.dtype else fit(result, Meta(shape, meta.dtype, meta.device))


def _alone(node: Node, cotangents: Sequence[Tensor | None]) -> Results:
    """The formula of one row, which is what PyTorch wrote it for: under vmap `cumprod` takes a way of n² ops."""
    results = call(node, [None if rows is None else rows[0] for rows in cotangents])
    return [
        None if result is None or edge is None else fit(result, edge[0].outputs[edge[1]]).unsqueeze(0)
        for result, edge in zip(results, node.inputs, strict=False)
    ]


def _mapped(node: Node, cotangents: Sequence[Tensor | None]) -> Results:
    """The formula under vmap."""
    slots = [slot for slot, cotangent in enumerate(cotangents) if cotangent is not None]

    def one(*rows: Tensor) -> list[Tensor | None]:
        given: list[Tensor | None] = [None] * len(cotangents)
        for slot, row in zip(slots, rows, strict=True):
            given[slot] = row
        return [
            None if result is None or edge is None else fit(result, edge[0].outputs[edge[1]])
            for result, edge in zip(call(node, given), node.inputs, strict=False)
        ]

    return map_rows(one, [cotangents[slot] for slot in slots])


def _dim(node: Node, name: str, rank: int) -> int:
    """A saved dim of a tensor, as the dim of its rows."""
    return node.saved(name) % max(rank, 1) + 1


@_formula(*(f"{stem}Backward{k}" for stem in ONE_SHAPE for k in range(3)), *POINTWISE_LOSSES)
def _multiplied(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results | None:
    if len(cotangents) > 1:
        return None
    (rows,) = cotangents
    results = node.fn(ones(node))
    if type(results) is not tuple:
        results = (results,)
    if any(result is not None and result.shape != node.shape for result in results):  # it was reduced
        return None
    return [None if result is None else rows * result for result in results]


@_formula(
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1",
    "SqueezeBackward2", "UnsqueezeBackward0",
)  # fmt: skip
def _view(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    return [rows.reshape(count, *node.into(0).shape)]


@_formula("ExpandBackward0")
def _expand(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    return cotangents


@_formula("TransposeBackward0")
def _transpose(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    rank = len(node.shape)
    return [rows.transpose(_dim(node, "dim0", rank), _dim(node, "dim1", rank)) if rank else rows]


@_formula("TBackward0")
def _t(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    return [rows.transpose(1, 2) if len(node.shape) == 2 else rows]


@_formula("PermuteBackward0")
def _permute(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    dims = [dim % len(node.shape) for dim in node.saved("dims")]
    return [rows.permute(0, *(dims.index(dim) + 1 for dim in range(len(dims))))]


@_formula("FlipBackward0")
def _flip(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    rank = len(node.shape)
    return [rows.flip([dim % rank + 1 for dim in node.saved("dims")]) if rank else rows]


@_formula("RollBackward0")
def _roll(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    shifts, dims = node.saved("shifts"), node.saved("dims")
    if not dims:  # the flattened tensor is rolled
        return [rows.flatten(1).roll(-shifts[0], 1).view(rows.shape)]
    return [rows.roll([-shift for shift in shifts], [dim % len(node.shape) + 1 for dim in dims])]


@_formula("CumsumBackward0")
def _cumsum(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    if not node.shape:
        return [rows]
    dim = _dim(node, "dim", len(node.shape))
    return [rows.flip(dim).cumsum(dim).flip(dim)]


@_formula("SoftmaxBackward0", "LogSoftmaxBackward0")
def _softmax(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    if not node.shape:  # a constant
        return [torch.zeros_like(rows)]
    dim, result = _dim(node, "dim", len(node.shape)), node.saved("result")
    if node.name.startswith("Log"):
        return [rows - result.exp() * rows.sum(dim, keepdim=True)]
    scaled = rows * result
    return [scaled - result * scaled.sum(dim, keepdim=True)]


@_formula("SelectBackward0")
def _select(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    shape = node.into(0).shape
    dim = _dim(node, "dim", len(shape))
    return [torch.ops.aten.select_backward.default(rows, (count, *shape), dim, node.saved("index"))]


@_formula("SliceBackward0")
def _slice(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    shape = node.into(0).shape
    window = _dim(node, "dim", len(shape)), node.saved("start") or 0, node.saved("end"), node.saved("step")
    return [torch.ops.aten.slice_backward.default(rows, (count, *shape), *window)]


@_formula("UnbindBackward0")
def _unbind(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    return [torch.stack(_filled(node, cotangents, count), _dim(node, "dim", len(node.shape) + 1))]


def _filled(node: Node, cotangents: Sequence[Tensor | None], count: int) -> list[Tensor]:
    """The cotangents of all outputs, zeros where none came."""
    return [
        torch.zeros((count, *meta.shape), dtype=meta.dtype, device=meta.device) if rows is None else rows
        for rows, meta in zip(cotangents, node.outputs, strict=True)
    ]


@_formula("StackBackward0")
def _stack(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    return rows.unbind(_dim(node, "dim", len(node.shape)))


@_formula(
    "SplitBackward0", "SplitWithSizesBackward0", "UnsafeSplitBackward0", "UnsafeSplitWithSizesBackward0"
)
def _split(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    return [torch.cat(_filled(node, cotangents, count), _dim(node, "dim", len(node.shape)))]


@_formula("CatBackward0")
def _cat(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    dim = node.saved("dim") % len(node.shape)
    return [
        rows.narrow(dim + 1, start, node.into(k).shape[dim])
        if start is not None and len(node.into(k).shape) == len(node.shape)  # an empty (0,) joins any shape
        else None
        for k, start in enumerate(cat_starts(node, dim))
    ]


@_formula("SumBackward0", "SumBackward1", "MeanBackward0", "MeanBackward1")
def _sum(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    shape = node.into(0).shape
    over = (node.saved("dim") if node.name.endswith("1") else None) or range(len(shape))
    summed = {dim % len(shape) for dim in over} if shape else ()
    kept = [1 if dim in summed else size for dim, size in enumerate(shape)]
    rows = rows.reshape(count, *kept)
    if node.name.startswith("Mean"):
        rows = rows / prod(shape[dim] for dim in summed)
    return [rows.expand(count, *shape)]


@_formula("MmBackward0", "BmmBackward0")
def _product(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results | None:
    (rows,) = cotangents
    return _of_factors(node, rows, 0, "self", "mat2")


@_formula("AddmmBackward0")
def _product_added(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results | None:
    (rows,) = cotangents
    alpha, beta = node.saved("alpha"), node.saved("beta")
    scaled = rows if alpha == 1 else rows * alpha
    factors = _of_factors(node, scaled, 1, "mat1", "mat2")
    return factors and [rows if beta == 1 else rows * beta, *factors]


def _of_factors(node: Node, rows: Tensor, k: int, left: str, right: str) -> list[Tensor | None] | None:
    """What goes to inputs k and k + 1, whose product was taken: only what is asked for, which weights seldom are."""
    found: list[Tensor | None] = [None, None]
    for at, name in enumerate((right, left)):
        if node.needs(k + at):
            factor = node.saved(name)
            if factor.layout is not torch.strided:
                return None
            found[at] = torch.matmul(rows, factor.mH) if at == 0 else torch.matmul(factor.mH, rows)
    return found


@_formula("MvBackward0")
def _of_vector(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    return [
        rows.unsqueeze(-1) * node.saved("vec").conj() if node.needs(0) else None,
        torch.matmul(rows, node.saved("self").conj()) if node.needs(1) else None,
    ]


@_formula("DotBackward0")
def _dot(node: Node, cotangents: Sequence[Tensor | None], count: int) -> Results:
    (rows,) = cotangents
    return [
        rows.unsqueeze(-1) * node.saved(other).conj() if node.needs(k) else None
        for k, other in enumerate(("tensor", "self"))
    ]
