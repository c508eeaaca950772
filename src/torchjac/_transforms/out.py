"""Answers written into tensors that the caller has: a loop that takes one Jacobian after another allocates none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .._blocks.tracing import inside_functorch
from .._capture.shared_memory import memory_of
from .._torch import pytree
from .arguments import nest
from .call_function import Recorded

#: The tensors to write into, ``[output][input]``
Outs = list[list[Tensor]]


def check_out(out: Any, recorded: Recorded, what: str) -> Outs:
    """Return the tensors of ``out``, a tree like the answer.

    Raises:
        RuntimeError: where the answer is differentiable or inside a functorch transform, or a tensor is an input.
        ValueError: where the tree, or the shape, dtype or device of a tensor is not that of the answer.
    """
    outs = _leaves(out, recorded, what)
    read = {memory_of(tensor) for tensor in (*recorded.inputs, *recorded.captured.outputs)}
    for row, output in zip(outs, recorded.captured.outputs, strict=True):
        for leaf, tensor in zip(row, recorded.inputs, strict=True):
            _check_leaf(leaf, (*output.shape, *tensor.shape), tensor, what)
    filled = [leaf for row in outs for leaf in row if leaf.numel()]
    if any(memory_of(leaf) in read for leaf in filled) or _share_places(filled):
        raise RuntimeError(
            f"{what}: a tensor of out shares memory with an input or output of func, or with another one"
        )
    return outs


def _share_places(tensors: Sequence[Tensor]) -> bool:
    """Return whether two tensors have a place in memory in common; parts of one tensor that lie between have none."""
    of_memory: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        of_memory.setdefault(memory_of(tensor), []).append(tensor)
    return any(len(parts) > 1 and _overlap(parts) for parts in of_memory.values())


def _overlap(parts: Sequence[Tensor]) -> bool:
    """Return whether two parts of one memory overlap: where their spans do, each place is looked at."""
    spans = sorted((part.data_ptr(), part.data_ptr() + _span(part) * part.element_size()) for part in parts)
    if all(end <= begin for (_, end), (begin, _) in pairwise(spans)):
        return False
    if len({part.dtype for part in parts}) > 1:
        return True
    first = min(part.storage_offset() for part in parts)
    offsets = [int(part.storage_offset() - first) for part in parts]
    size = max(map(sum, zip(offsets, map(_span, parts), strict=True)))
    places = torch.arange(size, device="cpu")
    taken = torch.zeros_like(places, dtype=torch.bool)
    for part, offset in zip(parts, offsets, strict=True):
        taken[places.as_strided(part.shape, part.stride(), offset)] = True
    return int(taken.sum()) < sum([part.numel() for part in parts])


def _span(part: Tensor) -> int:
    """Return how many places lie between the first entry of a tensor and the last one, both among them."""
    return 1 + sum([step * (size - 1) for step, size in zip(part.stride(), part.shape, strict=True)])


def sparse_out(out: Any, recorded: Recorded, layout: torch.layout, what: str) -> Outs:
    """Return the sparse matrices of ``out``, a tree like the answer, whose values are to be written anew.

    Raises:
        RuntimeError: where the answer is differentiable or inside a functorch transform.
        ValueError: where the tree or a layout is not that of the answer.
    """
    outs = _leaves(out, recorded, what)
    for row in outs:
        for leaf in row:
            if not isinstance(leaf, Tensor) or leaf.layout is not layout or leaf.requires_grad:
                got = leaf.layout if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ValueError(
                    f"{what}: out must hold matrices of layout {layout} that require no gradients, got {got}"
                )
    return outs


def _leaves(out: Any, recorded: Recorded, what: str) -> Outs:
    """Return the tensors of a tree like the answer, where no graph of it is asked for."""
    if recorded.captured.records or inside_functorch():
        raise RuntimeError(
            f"{what}: out= keeps no graph, but the Jacobian is asked to be differentiable (an input or a captured "
            "tensor requires gradients, or a torch.func transform is active); call it under torch.no_grad(), or "
            "without out="
        )
    number = iter(range(len(recorded.captured.outputs) * len(recorded.inputs)))
    numbered = [[next(number) for _ in recorded.inputs] for _ in recorded.captured.outputs]
    expected = pytree.tree_structure(nest(numbered, recorded.out_spec, recorded.in_spec))
    leaves, spec = pytree.tree_flatten(out)
    if spec != expected:
        outputs, inputs = recorded.captured.outputs, recorded.inputs
        shapes = [[_Told(torch.Size((*o.shape, *i.shape))) for i in inputs] for o in outputs]
        raise ValueError(
            f"{what}: out must be a tree of tensors like the Jacobian, "
            f"{nest(shapes, recorded.out_spec, recorded.in_spec)}, got {pytree.tree_map(_Told, out)}"
        )
    return [[leaves[at] for at in row] for row in numbered]


class _Told:
    """Return the words of an error for a leaf: the shape, or the type of what is no tensor."""

    def __init__(self, leaf: Any) -> None:
        self.leaf = leaf

    def __repr__(self) -> str:
        if isinstance(self.leaf, torch.Size):
            return f"Tensor{tuple(self.leaf)}"
        return (
            f"Tensor{tuple(self.leaf.shape)}" if isinstance(self.leaf, Tensor) else type(self.leaf).__name__
        )


def targets(outs: Outs) -> list[list[Tensor | None]]:
    """Those that can be written into as they are; the others are copied into at the end."""
    return [[leaf if leaf.is_contiguous() else None for leaf in row] for row in outs]


def _check_leaf(leaf: Any, shape: tuple[int, ...], like: Tensor, what: str) -> None:
    if not isinstance(leaf, Tensor) or leaf.requires_grad or leaf.layout is not torch.strided:
        got = type(leaf).__name__
        if isinstance(leaf, Tensor):
            got = f"one of layout {leaf.layout}" if leaf.layout is not torch.strided else "one that does"
        raise ValueError(f"{what}: out must hold dense tensors that require no gradients, got {got}")
    given = (tuple(leaf.shape), leaf.dtype, leaf.device)
    if given != (shape, like.dtype, like.device):
        raise ValueError(
            f"{what}: a tensor of out has shape {given[0]}, {given[1]} on {given[2]}; the Jacobian has shape "
            f"{shape}, {like.dtype} on {like.device}"
        )


def fill(outs: Outs, answers: Sequence[Sequence[Tensor]]) -> Outs:
    """Return the tensors to write into, with the answers that were not written there yet."""
    for row, found in zip(outs, answers, strict=True):
        for leaf, answer in zip(row, found, strict=True):
            if memory_of(leaf) != memory_of(answer) or leaf.numel() == 0:
                leaf.copy_(answer)
    return outs
