"""Calling a node: its backward formula on one cotangent, results fitted to the inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge

from .._blocks.tracing import inside_functorch
from .._capture.capture import batched_zero
from .._capture.missing_cotangents import takes_none
from .._capture.tape import Meta, Node
from .._capture.writing_functions import WRITE, WRITE_OF_FUNCTION
from .._plan.recording import whole
from .backward_overrides import by_override, needs_override
from .conv_input import image_cotangents, input_cotangent


def call(
    node: Node, cotangents: Sequence[Tensor | None], wanted: Collection[int] | None = None
) -> tuple[Tensor | None, ...]:
    """Run the node's backward formula once; the results are not yet reduced for broadcasting.

    Where each costs as much as all else, only those of the ``wanted`` inputs are formed, by default of all needed.
    """
    node.calls += 1
    if needs_override(node, cotangents):
        found = by_override(node, cotangents)
        if found is not None:
            return tuple(found)
    if node.is_python:
        if any(c is None for c in cotangents) and not takes_none(node.fn):
            cotangents = _with_zeros(node, cotangents)
        if inside_functorch():  # a backward may write into its cotangents, or into tensors made like them
            cotangents = [None if c is None else c + batched_zero(c) for c in cotangents]
        return _call_python(node, cotangents)
    if node.name in COSTLY_EACH:
        wanted = [k for k in range(len(node.inputs)) if node.needs(k) and (wanted is None or k in wanted)]
        (cotangent,) = cotangents
        if wanted == [0] and cotangent is not None:
            pulled = input_cotangent(node, cotangent)
            image = image_cotangents(node, cotangent) if pulled is None else pulled
            return (image, *[None] * (len(node.inputs) - 1))
        if _are_apart(node, wanted):
            return _call_wanted(node, cotangents, wanted)
    try:
        results = node.vjp(*cotangents)
    except RuntimeError:
        if node.name in (WRITE, WRITE_OF_FUNCTION) and inside_functorch():
            # It writes into a copy of the cotangent, which must then be as batched as what is written.
            results = node.vjp(*(c if c is None else c + batched_zero(c) for c in cotangents))
        elif node.name in TAKES_SPARSE:
            results = _call_sparse(node, cotangents)
        else:
            raise
    gradients: tuple[Tensor | None, ...] = results if isinstance(results, tuple) else (results,)
    for result in gradients:
        if result is not None and result._is_zerotensor():
            # A zero tensor without storage, as `sgn` and `floor` give, is as good as no result.
            return tuple([None if other is None or other._is_zerotensor() else other for other in gradients])
    return gradients


def _with_zeros(node: Node, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the cotangents of a Function with zeros for those that are missing."""
    return [
        torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)
        if cotangent is None and is_tensor
        else cotangent
        for cotangent, meta, is_tensor in zip(cotangents, node.outputs, _are_tensors(node), strict=True)
    ]


def _are_tensors(node: Node) -> list[bool]:
    """Return whether each output of a node is a tensor, as far as it matters.

    A Function that functorch made for a vmap puts out its batch dims as well, and wants no zeros for those of a vmap
    inside: it has a tuple of dims for them (torch 2.9-2.13). Elsewhere a backward looks at no cotangent of a number.
    """
    of_vmaps: dict[int, Any] = getattr(node.fn, "_pt_out_dims", None) or {}
    dims = of_vmaps.get(id(node.function), ())
    dims = dims if isinstance(dims, tuple) else (dims,)
    known = [dim is None or isinstance(dim, int) for dim in dims]
    return known + [True] * (len(node.outputs) - len(known))


#: Ops that form each input's gradient by itself, and at the price of the whole call.
COSTLY_EACH = {"ConvolutionBackward0", "CudnnConvolutionBackward0", "MiopenConvolutionBackward0"}


#: Ops of sparse tensors whose formulas refuse a dense cotangent, or one that stores other entries than their result.
TAKES_SPARSE = {
    "ReluBackward0", "SparseLogSoftmaxBackward0", "SparseSoftmaxBackward0", "SparseSparseMatmulBackward0",
}  # fmt: skip


@whole
def _call_sparse(node: Node, cotangents: Sequence[Tensor | None]) -> Any:
    """Run the node on one cotangent that stores what the op's result stores, or where none is saved no zeros."""
    (cotangent,) = cotangents
    like = getattr(node.fn, "_saved_result", None)
    if cotangent is None or (like is not None and like.layout is not torch.sparse_coo):
        return node.vjp(cotangent)
    stored = cotangent.to_sparse() if like is None else cotangent.sparse_mask(like.detach().coalesce())
    return node.vjp(stored)


def _are_apart(node: Node, wanted: Sequence[int]) -> bool:
    """Return whether some inputs can be asked for alone: there are others, and no tensor is among both."""
    edges = [edge for edge in node.fn.next_functions if edge[0] is not None]
    return len(wanted) < len(edges) == len(set(edges))


@whole
def _call_wanted(
    node: Node, cotangents: Sequence[Tensor | None], wanted: Sequence[int]
) -> tuple[Tensor | None, ...]:
    """Run the node by PyTorch's engine, which tells it the inputs that are wanted; a direct call cannot."""
    given = [(slot, cotangent) for slot, cotangent in enumerate(cotangents) if cotangent is not None]
    found = torch.autograd.grad(
        [GradientEdge(node.fn, slot) for slot, _ in given],
        [GradientEdge(*node.fn.next_functions[k]) for k in wanted],
        [cotangent for _, cotangent in given],
        retain_graph=True,
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
    )
    results: list[Tensor | None] = [None] * len(node.inputs)
    for k, result in zip(wanted, found, strict=True):
        results[k] = result
    return tuple(results)


def fit(result: Tensor, meta: Meta) -> Tensor:
    """Reduce a result for broadcasting and cast it to the input's dtype, as PyTorch's engine does; never sparse."""
    shape, dtype, _ = meta
    if result.shape == shape and result.dtype is dtype and result.layout is torch.strided:
        return result
    if result.layout is not torch.strided:
        result = result.to_dense()
    if tuple(result.shape) != shape:
        result = result.sum_to_size(shape)
    if result.is_complex() and not dtype.is_complex:
        result = result.real
    return result.to(dtype)


@whole
def _call_python(node: Node, cotangents: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Return a Python Function's backward, its results brought in the order of the node's inputs.

    PyTorch calls it from its engine only; what the engine adds is here and in `call`.
    """
    results = BackwardCFunction.apply(
        node.fn, *cotangents
    )  # not node.fn.apply: what is kept on it may hide that
    results = results if isinstance(results, tuple) else (results,)
    wanted = iter(result for result, needed in zip(results, node.fn.needs_input_grad, strict=False) if needed)
    return tuple(next(wanted) if below is not None else None for below, _ in node.fn.next_functions)
