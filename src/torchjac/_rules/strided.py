"""Parts of a tensor as strides tell them: where they stand dim by dim, and what lies outside of a box."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from torch import Tensor

from .._blocks.block import KEPT, Block, interned
from .._blocks.maps import Affine
from .einsum_notation import broadcast, new_labels

#: A range of positions along each dim
Slices: TypeAlias = tuple[slice, ...]

#: For each dim of a tensor the first position, and for dims of the part the steps along it
StrideLaw: TypeAlias = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]


@lru_cache(maxsize=KEPT)
def law_of(
    shape: Sequence[int], lies: Sequence[int], size: Sequence[int], stride: Sequence[int], offset: int
) -> StrideLaw | None:
    """Return where a strided part begins in a tensor that lies in memory by strides ``lies``, dim by dim.

    A memory position is a number whose digits are the positions along the dims, so a stride is one too; as long as
    no sum of digits runs over, each dim has a law of its own. None where one does.

    Example: the diagonal of (3, 4) has stride 5 = 1·4 + 1: a step of one along both dims.
    """
    if 0 in shape or 0 in size or not _is_nested(shape, lies):
        return None
    starts = _digits(offset, shape, lies)
    if starts is None:
        return None
    steps: dict[int, list[int]] = {}
    for dim, count in enumerate(size):
        if count > 1:
            digits = _digits(stride[dim], shape, lies)
            if digits is None:
                return None
            steps[dim] = digits
    law = []
    for at, start in enumerate(starts):
        along = tuple([(dim, step[at]) for dim, step in steps.items() if step[at]])
        if start + sum([step * (size[dim] - 1) for dim, step in along]) >= shape[at]:
            return None
        law.append((start, along))
    return tuple(law) if all(map(any, steps.values())) else None


def _outer_first(shape: Sequence[int], lies: Sequence[int]) -> list[int]:
    """Return the dims that have more than one position, by falling strides."""
    return sorted([dim for dim, count in enumerate(shape) if count > 1], key=lambda dim: -lies[dim])


def _is_nested(shape: Sequence[int], lies: Sequence[int]) -> bool:
    """Return whether each dim takes its steps outside of all that lies within one step of it."""
    within = 1
    for dim in reversed(_outer_first(shape, lies)):
        if lies[dim] < within:
            return False
        within = lies[dim] * shape[dim]
    return True


def _digits(number: int, shape: Sequence[int], lies: Sequence[int]) -> list[int] | None:
    """Return a position in memory as positions along the dims; None for one between entries."""
    digits = [0] * len(shape)
    for dim in _outer_first(shape, lies):
        digits[dim], number = divmod(number, lies[dim])
    return digits if number == 0 else None


@interned
def placed(law: StrideLaw, size: Sequence[int], in_shape: Sequence[int]) -> Block:
    """∂out[part(i)]/∂source[i] = 1 for a source that may broadcast over the part."""
    over = new_labels(size)
    out = tuple([Affine(start, tuple([(over[dim], step) for dim, step in along])) for start, along in law])
    return Block(1.0, (), out, broadcast(over, in_shape))


@lru_cache(maxsize=KEPT)
def box_of(law: StrideLaw, size: Sequence[int]) -> Slices | None:
    """Return the box that a part fills, None where it leaves gaps."""
    box = []
    for start, along in law:
        if len(along) > 1 or any(step != 1 for _, step in along):
            return None
        box.append(slice(start, start + (size[along[0][0]] if along else 1)))
    used = [dim for _, along in law for dim, _ in along]
    return tuple(box) if len(set(used)) == len(used) else None


def bounds(mask: Tensor) -> Slices:
    """Return the smallest box that holds all true entries, of which there is one at least."""
    if mask.dim() == 0:
        return ()
    found = mask.nonzero()
    low, high = found.amin(0).tolist(), found.amax(0).tolist()
    return tuple(slice(start, stop + 1) for start, stop in zip(low, high, strict=True))


def around(shape: Sequence[int], hole: Slices) -> list[Slices]:
    """Boxes without overlap that fill a tensor outside of a box."""
    boxes = []
    window = [slice(0, size) for size in shape]
    for dim, part in enumerate(hole):
        for start, stop in ((window[dim].start, part.start), (part.stop, window[dim].stop)):
            if start < stop:
                boxes.append((*window[:dim], slice(start, stop), *window[dim + 1 :]))
        window[dim] = part
    return boxes
