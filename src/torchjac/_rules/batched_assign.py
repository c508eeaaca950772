"""A write through a view, and the view, taken by many cotangents at once while a program is recorded.

Where the part stands that was written is found by calls, which a program makes once; from then on it only makes sure,
by one call, that the node moves entries as it did (`assign.Moves`), and reads the part and the rest off all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.dense_views import is_injective
from .._blocks.maps import Affine, Label, Map, bare_label, labels_of
from .._blocks.tracing import is_tracing
from .._capture.tape import Node
from .._plan.recorder import recorder
from .._plan.recording import unrecorded
from .batched_formulas import Results, formula
from .registry import Local
from .view_assignment import guarded


def _moves(node: Node) -> tuple[list[Local] | None, Sequence[Tensor | None]]:
    """Return the terms of a node that moves entries, and what it makes of numbers other than zero, for a program."""
    may = recorder() is not None and not torch.is_grad_enabled() and not is_tracing()
    return guarded(node) if may else (None, ())


@formula("torch::autograd::CopySlices")
def _assigned(node: Node, count: int, rows: Tensor) -> Results | None:
    terms, results = _moves(node)
    recording = recorder()
    if terms is None or recording is None:
        return None
    found: list[Tensor | None] = [None] * len(node.inputs)
    for k, block, *_ in terms:
        part = rows if k == 0 else _read(rows.contiguous(), block.out, block.wrt, node.shape)
        found[k] = part if k == 0 or block.value == 1 else part * block.value
    if found[0] is not None and results[0] is not None:
        with unrecorded():
            written = results[0] == 0
            some = bool(written.any())
        if some:
            recording.hold((written,))
            found[0] = rows.masked_fill(written, 0)
    return found


@formula("AsStridedBackward0")
def _viewed(node: Node, count: int, rows: Tensor) -> Results | None:
    if not is_injective(node.saved("size"), node.saved("stride")):
        return None
    terms, _ = _moves(node)
    if terms is None:
        return None
    ((_, block, *_),) = terms
    shape = node.into(0).shape
    zeros = torch.zeros((count, *shape), dtype=rows.dtype, device=rows.device)
    _part(zeros, block.wrt, labels_of(block.out), shape).copy_(rows)
    return [zeros]


def _read(rows: Tensor, out: Sequence[Map], wrt: tuple[Map, ...], shape: Sequence[int]) -> Tensor:
    """Return a source's part of rows that lie without gaps, summed where the source was broadcast."""
    kept = list(labels_of(wrt))
    over = [*kept, *(label for label in labels_of(tuple(out)) if label not in kept)]
    part = _part(rows, out, over, shape)
    if len(kept) < len(over):
        part = part.sum(list(range(1 + len(kept), 1 + len(over))))
    labels = [bare_label(map_) for map_ in wrt]
    return part.reshape(len(rows), *[1 if label is None else label.size for label in labels])


def _part(
    rows: Tensor, at: Sequence[Map], over: Sequence[Label] | dict[Label, None], shape: Sequence[int]
) -> Tensor:
    """Return the entries of rows that lie without gaps at the positions of some labels, a dim for each."""
    strides, start = dict.fromkeys(over, 0), 0
    for dim, map_ in enumerate(at):
        assert isinstance(map_, Affine)
        step = prod(shape[dim + 1 :])
        start += map_.offset * step
        for label, factor in map_.terms:
            strides[label] += factor * step
    size = (len(rows), *[label.size for label in over])
    return rows.as_strided(size, (prod(shape), *strides.values()), rows.storage_offset() + start)
