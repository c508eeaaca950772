"""Assignments through views: the graph of the node's own call says where the part stands that was written.

A write through a view (`out[1:-1] = y`, `out[i] += y`) is a `CopySlices` node around a node that Python cannot
see. Called on a cotangent g that asks for gradients, it leaves a graph that can be read: what arrives at the source
of an assignment is ``g.as_strided(size, stride, offset).clone()``, and what replaces the part in g has no graph.
Inside functorch it is the graph of the level that is active, and g has no batch dim: what moves entries does so alike
for a whole batch, and a result that has one does something else.

A Function that writes in place may compute anything outside of the graph: its writes have another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from .._blocks.block import identity
from .._blocks.block_views import swapped
from .._blocks.dense_views import is_injective
from .._blocks.tracing import is_tracing
from .._capture.capture import plain
from .._capture.tape import Meta, Node
from .._plan.recorder import recorder
from .._plan.recording import unrecorded
from .._plan.steps import MismatchError
from .call import call
from .registry import Local
from .scatter import kept, outside
from .strided import StrideLaw, bounds, box_of, law_of, placed


class ViewPart(NamedTuple):
    """Where a part of a tensor stands: as strides tell it, dim by dim, and with which sign it arrives."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    lies: tuple[int, ...]
    law: StrideLaw
    sign: float = 1.0

    def of(self, tensor: Tensor) -> Tensor:
        """Return the part as a view of a tensor that lies in memory as the one written into does."""
        return tensor.as_strided(self.size, self.stride, self.offset)

    def laid(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor that lies so; `clone` would close gaps."""
        return tensor.new_empty_strided(tensor.shape, self.lies).copy_(tensor)


def moved(node: Node) -> list[Local] | None:
    """Return the terms of a node that moves entries of a real tensor of an entry at least, found by one call.

    None where the graph or the values show anything else, or cannot be looked at.
    """
    how = MOVING.get(node.name)
    if how is None or is_tracing() or torch.is_inference_mode_enabled():
        return None
    if recorder() is not None:
        return guarded(node)[0]
    given = apart(node.outputs[0])
    return None if given is None else how(node, given)


def guarded(node: Node) -> tuple[list[Local] | None, Sequence[Tensor | None]]:
    """Return the terms of a node that moves entries, for a program that is recorded, and what it makes of `apart`."""
    found = recorder()
    with unrecorded():
        given = apart(node.outputs[0])
        if found is None or given is None:
            return None, ()
        terms = MOVING[node.name](node, given)
        with torch.no_grad():
            results = _as_tuple(node.fn(given))
    found.step_of(Moves(given, results), node.fn)  # what moves every entry alike moves all others so
    for term in terms or ():
        found.hold(term.block)
    return terms, results


class Moves:
    """A guard of a program: a node makes of numbers that are all different what it made of them before."""

    __slots__ = ("given", "results")

    #: A call of the node and a comparison of each result, in microseconds
    price = 7.0

    def __init__(self, given: Tensor, results: Any) -> None:
        self.given = given
        self.results = _as_tuple(results)

    def __call__(self, fn: Any) -> None:
        """Raise MismatchError if it makes anything else."""
        with torch.no_grad():
            found = _as_tuple(fn(self.given))
        for one, other in zip(found, self.results, strict=True):
            if one is not other and (one is None or other is None or not torch.equal(one, other)):
                raise MismatchError


def _as_tuple(results: Any) -> tuple[Tensor | None, ...]:
    return results if isinstance(results, tuple) else (results,)


def apart(meta: Meta) -> Tensor | None:
    """Return the numbers k + 1 + cos(k²) / 4: none is equal to, a multiple or a sum of others; complex: a + i a.

    None where they have no values, or where the dtype has too few numbers.
    """
    shape, dtype, device = meta
    if device.type == "meta" or not (dtype.is_floating_point or dtype in (torch.complex64, torch.complex128)):
        return None
    if prod(shape) * torch.finfo(dtype).eps > 0.25 or torch.finfo(dtype).bits < 16:
        return None
    number = torch.arange(prod(shape), dtype=dtype.to_real(), device=device)
    number = number.square().cos_().div_(4).add_(number).add_(1).view(shape)
    return plain(torch.complex(number, number) if dtype.is_complex else number)


def _viewed(node: Node, given: Tensor) -> list[Local] | None:
    """Return a view of memory, as a view that was written into becomes, or frames that overlap: out[i] = x[part(i)].

    Example: frames of 16 numbers, one every 4 of 100: 352 entries, no number stored.
    """
    with torch.no_grad():
        (result,) = call(node, [given])
        if result is None:
            return None
        part = _strided(node.fn, tuple(result.shape), result.stride())
        if part is None:
            return None
        if not is_injective(part.size, part.stride):  # sums of small integers are the same in any order
            given = plain(
                torch.arange(given.numel(), device=given.device).mul_(7919).remainder_(1009).add_(1)
            )
            given = given.to(result.dtype).view(part.size)
            (result,) = call(node, [given])
            assert result is not None  # as for other numbers
    expected = part.laid(given.new_zeros(result.shape))
    flat = expected.as_strided((_reach(expected),), (1,))
    at = torch.arange(flat.numel(), device=given.device).as_strided(part.size, part.stride, part.offset)
    flat.index_add_(0, at.reshape(-1), given.reshape(-1))
    return [Local(0, swapped(placed(part.law, part.size, part.size)))] if _equal(result, expected) else None


def _reach(tensor: Tensor) -> int:
    """Return how much memory lies between the first and the last entry of a tensor that has some."""
    return 1 + sum([(size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)])


def _assigned(node: Node, given: Tensor) -> list[Local] | None:
    """A write into a view: ∂out[part(i)]/∂source[i] = ±1, ∂out/∂base = 1 outside of the part, or everywhere for `+=`.

    Example: x (5,), y (3,), x[1:-1] = y: ∂out/∂y is one block and ∂out/∂x two, without a number.
    """
    given = Parameter(given)  # functorch lets no other tensor ask for gradients
    results = _recorded(node, given)
    if results is None:
        return None
    part, terms = None, []
    for k, result in enumerate(results):
        if k > 0 and node.needs(k) and result is not None:
            part = _part(result.grad_fn, given, results[0])
            if part is None:
                return None
            terms.append(Local(k, placed(part.law, part.size, node.into(k).shape)._replace(value=part.sign)))
    if node.needs(0) and results[0] is not None:
        base = _base(node, results[0], given, part)
        if base is None:
            return None
        terms += base
    return terms


def _recorded(node: Node, given: Tensor) -> Sequence[Tensor | None] | None:
    """Call a node so that its results have graphs.

    A write of what is batched inside functorch refuses to be called so.
    """
    node.calls += 1
    try:
        with torch.enable_grad():
            results = node.vjp(given)
    except RuntimeError:
        return None
    return _as_tuple(results)


def _part(fn: Any, given: Tensor, whole: Tensor | None) -> ViewPart | None:
    """Return the part of the cotangent that a graph reads, or None where it does anything else.

    The cotangent was copied so that it lies as the tensor written into does; ``whole`` is what became of the copy.
    """
    sign = 1.0
    while fn is not None and fn.name() in ("NegBackward0", "CloneBackward0"):
        sign = -sign if fn.name() == "NegBackward0" else sign
        fn = fn.next_functions[0][0]
    if fn is None or fn.name() != "AsStridedBackward0" or not _copies(fn.next_functions[0][0], given):
        return None
    if whole is None:  # nobody asks for it, but the copy's gradient lies so too
        with torch.no_grad():
            whole = fn(given.new_zeros(fn._saved_size))
    part = _strided(fn, tuple(given.shape), whole.stride())
    return None if part is None else part._replace(sign=sign)


def _strided(fn: Any, shape: tuple[int, ...], lies: tuple[int, ...]) -> ViewPart | None:
    """Return what an `as_strided` reads of a tensor of a shape that lies in memory by some strides."""
    size, stride, offset = fn._saved_size, fn._saved_stride, fn._saved_storage_offset or 0
    law = law_of(shape, lies, size, stride, offset)
    return None if law is None else ViewPart(size, stride, offset, lies, law)


def _copies(fn: Any, given: Tensor) -> bool:
    """Return whether a node copies the whole cotangent."""
    if fn is None or fn.name() != "torch::autograd::CopyBackwards":
        return False
    end = fn.next_functions[1][0]
    return end is not None and getattr(end, "variable", None) is given


def _equal(result: Tensor, expected: Tensor) -> bool:
    """Return whether a result has the values expected, and no batch dim."""
    return torch.equal(plain(result), plain(expected))


def _base(node: Node, result: Tensor, given: Tensor, part: ViewPart | None) -> list[Local] | None:
    """Return the tensor written into: all is kept where the part was added to, else what lies outside of it."""
    fn = result.grad_fn
    if (
        fn is None
        or fn.name() != "torch::autograd::CopySlices"
        or not _copies(fn.next_functions[0][0], given)
    ):
        return None
    written = fn.next_functions[1][0] if len(fn.next_functions) > 1 else None
    added = None if written is None else _part(written, given, result)
    given = given.detach()
    if written is not None:
        whole = added is not None and added.sign == 1 and _equal(result, given)
        return [Local(0, identity(node.shape))] if whole else None
    if part is None:  # the source needs nothing, so that only values tell where it went
        left = plain(result.detach())
        if left.shape != given.shape:
            return None
        hole = left != plain(given)
        return None if not bool(hole.any()) or bool(left[hole].any()) else _around(node, hole)
    left = part.laid(given)
    part.of(left).zero_()
    box = box_of(part.law, part.size)
    return _around(node, plain(left) != plain(given)) if box is None else outside(node, box)


def _around(node: Node, hole: Tensor) -> list[Local]:
    """Return what lies outside of a hole: boxes where the hole is one, else a diagonal with zeros."""
    box = bounds(hole)
    if bool(hole[box].all()):
        return outside(node, box)
    for dim in range(hole.dim()):  # a dim along which the hole is the same needs no zeros of its own
        first = hole.narrow(dim, 0, 1)
        if bool((hole == first).all()):
            hole = first
    return kept(node, hole)


#: The nodes that may do nothing but move entries, and how that is found out
MOVING = {"torch::autograd::CopySlices": _assigned, "AsStridedBackward0": _viewed}
