"""Re-indexing nodes that do not show their arguments: what each entry becomes is read off calls.

A write through a view (`out[1:-1] = y`, or `v.mul_(2)` for a view v) is a `CopySlices` node around a node
that Python cannot see. Where every result entry is a multiple of one cotangent entry, calls on cotangents
that hold NaN prove it: arithmetic with a NaN gives NaN, moving memory does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.dense_views import stands_for_one
from .._blocks.maps import Affine, Label, Map
from .._blocks.tracing import is_known, leaves_a_trail
from .._capture.tape import Node
from .call import call
from .einsum_notation import spelling
from .registry import Local, LocalJacobian, rule
from .strided import Slices, around, bounds
from .traced_backward import composed
from .view_assignment import moved
from .views import unravel


@rule("torch::autograd::CopySlices", any_dtype=True, kind="write")
@rule("AsStridedBackward0", "AsStridedScatterBackward0", any_dtype=True)
def probed(node: Node) -> LocalJacobian | None:
    """A node each of whose result entries is a multiple of at most one cotangent entry.

    Where all that it does is to move entries, one call tells (`assign.moved`), and where a write does more the graph
    of a call does (`formula.composed`). Else calls with NaN do.

    The factor is the result on ones. The entry is found bit by bit: NaN goes to all positions whose number
    has that bit clear, then to all that have it set. A result that is NaN both times mixes entries, one that
    is NaN exactly once tells the bit. An input whose result mixes entries, or whose values cannot be looked
    at (inside vmap), is left to seeds.
    """
    meta = node.outputs[0]
    size = prod(meta.shape)
    seen = moved(node)
    if seen is None and meta.dtype.is_complex:
        return None
    if seen is None and node.name == "torch::autograd::CopySlices":
        seen = composed(node)
    if seen is not None:
        # Entries of rows that overlap are summed by a call, and stand side by side in terms.
        overlap = node.name == "AsStridedBackward0" and any(map(_overlaps, seen))
        return (
            LocalJacobian(batch_dims={0: ()}, alternatives={0: lambda *_: spelling(seen)})
            if overlap
            else LocalJacobian(seen)
        )
    number = torch.arange(size, device=meta.device).view(meta.shape)
    ones = (number >= 0).to(meta.dtype)  # made of integers, so that a trace knows its values
    needed = [k for k in range(len(node.inputs)) if node.needs(k)]

    def ask(cotangent: Tensor) -> list[Tensor | None]:
        results = call(node, [cotangent])
        return [results[k] for k in needed]

    found = {k: _Found(result) for k, result in zip(needed, ask(ones), strict=True) if result is not None}
    for bit in range(max(1, (size - 1).bit_length())):
        has = (number >> bit) & 1 == 1
        if all(part.mixes for part in found.values()):
            break
        on_clear = dict(zip(needed, ask(ones.masked_fill(~has, torch.nan)), strict=True))
        on_set = dict(zip(needed, ask(ones.masked_fill(has, torch.nan)), strict=True))
        for k, part in found.items():
            part.note(bit, on_clear[k], on_set[k])
    terms: list[Local] = []
    for k, part in found.items():
        if not part.mixes:
            terms += _terms(node, k, part)
    return LocalJacobian(terms, {k: () for k, part in found.items() if part.mixes})


def _overlaps(term: Local) -> bool:
    """Return whether two values of the labels of a term read one entry."""
    return any(
        type(map_) is Affine and len(map_.terms) > 1 and not stands_for_one(map_) for map_ in term.block.wrt
    )


class _Found:
    """The knowledge of one result so far: its factors, and which cotangent entry each entry comes from."""

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor
        self.mixes = not is_known(factor) or not bool(factor.isfinite().all())
        self.source = torch.zeros(factor.shape, dtype=torch.int64, device=factor.device)
        self.touched = torch.zeros(factor.shape, dtype=torch.bool, device=factor.device)

    def note(self, bit: int, on_clear: Tensor | None, on_set: Tensor | None) -> None:
        """Take in the results where NaN stood at positions with the bit clear, and with the bit set."""
        if self.mixes or on_clear is None or on_set is None:
            return
        clear, set_ = on_clear.isnan(), on_set.isnan()
        self.mixes = bool((clear & set_).any())
        # The entry is not NaN where the position that it comes from is not.
        self.source += set_.to(torch.int64) << bit
        self.touched |= clear | set_


def _terms(node: Node, k: int, part: _Found) -> list[Local]:
    """Return terms for one input: ∂out[at[i]]/∂x[i] = factor[i], broadcast dims of the input summed."""
    shape, out_shape = node.into(k).shape, node.shape
    factor, at, used = part.factor, part.source, part.touched
    terms = []
    for window in _boxes(used):
        here, value = at[window], factor[window]
        over = tuple(Label(size) for size in here.shape)
        first = value.reshape(-1)[0]
        constant = bool((value == first).all())
        out = _affine(here, over, out_shape)
        if out is None:
            out = unravel(here, over, out_shape)
        wrt: list[Map] = []
        lead = len(over) - len(shape)
        for label, span, size in zip(over[lead:], window[lead:], shape, strict=True):
            wrt.append(Affine(0, ()) if size == 1 else Affine(span.start, ((label, 1),)))
        block_value = float(first) if constant and not leaves_a_trail([value]) else value
        on = () if isinstance(block_value, float) else over
        terms.append(Local(k, Block(block_value, on, out, tuple(wrt))))
    return terms


def _boxes(used: Tensor) -> list[Slices]:
    """Boxes that cover the true entries: exact where the false entries form one box, else a single box."""
    if bool(used.all()):
        return [tuple(slice(0, size) for size in used.shape)]
    hole = bounds(~used)
    return [bounds(used)] if bool(used[hole].any()) else around(used.shape, hole)


def _affine(at: Tensor, over: tuple[Label, ...], shape: Sequence[int]) -> tuple[Map, ...] | None:
    """Return the maps of positions affine in the labels along every dim of a shape; None if they are not."""
    maps: list[Map] = []
    for size in reversed(shape):
        here = at % size
        at = at // size
        offset = int(here[(0,) * here.dim()])
        expected, terms = torch.tensor(offset, device=at.device), []
        for dim, label in enumerate(over):
            if label.size > 1:
                second = [0] * here.dim()
                second[dim] = 1
                stride = int(here[tuple(second)]) - offset
                if stride:
                    terms.append((label, stride))
                    along = torch.arange(label.size, device=at.device) * stride
                    expected = expected + along.view([-1 if d == dim else 1 for d in range(here.dim())])
        if not bool((here == expected).all()):
            return None
        maps.append(Affine(offset, tuple(terms)))
    return tuple(reversed(maps))
