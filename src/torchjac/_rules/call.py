"""Calling a node: its backward formula on one cotangent, results fitted to the inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge

from .._blocks.traced import inside_functorch
from .._capture.capture import batched_zero
from .._capture.tape import Meta, Node
from .._plan.recorder import whole
from .anew import anew, goes_anew
from .unbatched import needs_all_cotangents


def call(
    node: Node, cotangents: Sequence[Tensor | None], wanted: Collection[int] | None = None
) -> tuple[Tensor | None, ...]:
    """Run the node's backward formula once; the results are not yet reduced for broadcasting.

    Where each costs as much as all else, only those of the ``wanted`` inputs are formed, by default of all needed.
    """
    node.calls += 1
    if goes_anew(node, cotangents):
        found = anew(node, cotangents)
        if found is not None:
            return tuple(found)
    if node.is_python or needs_all_cotangents(node):
        cotangents = [
            torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device) if cotangent is None else cotangent
            for cotangent, meta in zip(cotangents, node.outputs, strict=True)
        ]
    if node.is_python:
        if inside_functorch():  # a backward may write into its cotangents, or into tensors made like them
            cotangents = [None if c is None else c + batched_zero(c) for c in cotangents]
        return _call_python(node, cotangents)
    if node.name in COSTLY_EACH:
        wanted = [k for k in range(len(node.inputs)) if node.needs(k) and (wanted is None or k in wanted)]
        if _are_apart(node, wanted):
            return _call_wanted(node, cotangents, wanted)
    try:
        results = node.vjp(*cotangents)
    except RuntimeError:
        if node.name != "torch::autograd::CopySlices" or not inside_functorch():
            raise
        # It writes into a copy of the cotangent, which must then be as batched as what is written.
        results = node.vjp(*(c if c is None else c + batched_zero(c) for c in cotangents))
    if not isinstance(results, tuple):
        results = (results,)
    for result in results:
        if result is not None and result._is_zerotensor():
            # A zero tensor without storage, as `sgn` and `floor` give, is as good as no result.
            return tuple([None if other is None or other._is_zerotensor() else other for other in results])
    return results


#: Ops that form each input's gradient by itself, and at the price of the whole call.
COSTLY_EACH = {"ConvolutionBackward0", "CudnnConvolutionBackward0", "MiopenConvolutionBackward0"}


def _are_apart(node: Node, wanted: Sequence[int]) -> bool:
    """Whether some inputs can be asked for alone: there are others, and none of either is the same tensor twice."""
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
    """A Python Function's backward, its results brought in the order of the node's inputs.

    PyTorch calls it from its engine only; what the engine adds is here and in `call`.
    """
    results = BackwardCFunction.apply(
        node.fn, *cotangents
    )  # not node.fn.apply: what is kept on it may hide that
    results = results if isinstance(results, tuple) else (results,)
    wanted = iter(result for result, needed in zip(results, node.fn.needs_input_grad, strict=False) if needed)
    return tuple(next(wanted) if below is not None else None for below, _ in node.fn.next_functions)
