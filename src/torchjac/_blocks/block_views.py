"""The two ends of a block: swapped, joined into one dim, relabelled, or restricted to where they agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .._plan.recording import look_at, unrecorded
from .block import Block, labels
from .maps import (
    Affine,
    Gather,
    Label,
    Map,
    Substitution,
    align,
    bare,
    labels_of,
    positions,
    substitute,
    take,
)
from .spelling import spell
from .tracing import is_known, is_tracing
from .unify import unify


def swapped(block: Block) -> Block:
    """Return the transposed block."""
    return block._replace(out=block.wrt, wrt=block.out)


def relabelled(block: Block) -> Block:
    """Return the same block over labels of its own, so that it can meet itself in a product."""
    by: Substitution = {label: bare(Label(label.size)) for label in labels(block)}
    out = tuple([substitute(map_, by) for map_ in block.out])
    wrt = out if block.wrt is block.out else tuple([substitute(map_, by) for map_ in block.wrt])
    value, on = take(block.value, block.on, by) if block.on else (block.value, ())
    return Block(value, on, out, wrt)


def joined(maps: Sequence[Map], shape: Sequence[int]) -> Map:
    """Return the maps of several dims as one map into those dims flattened in row-major order."""
    dims, terms, stride = [Label(size) for size in shape], [], 1
    for dim in reversed(dims):
        terms.append((dim, stride))
        stride *= max(dim.size, 1)
    return substitute(Affine(0, tuple(reversed(terms))), dict(zip(dims, maps, strict=True)))


def shifted(map_: Map, by: int) -> Map:
    """Return the map with every position moved."""
    if type(map_) is Gather:
        return Gather(map_.index + by, map_.labels)
    return Affine(map_.offset + by, map_.terms)


def same_positions(a: Map, b: Map) -> bool:
    """Return whether two maps give the same position at every value of their labels; no for some tables that do.

    Tables without values, on the meta device or of one vmap, are such.
    """
    if a is b:
        return True
    used_a, used_b = ({label for label in map_.labels if label.size != 1} for map_ in (a, b))
    if used_a != used_b:
        return False
    if type(a) is Affine and type(b) is Affine:
        used = [{label: stride for label, stride in map_.terms if label.size != 1} for map_ in (a, b)]
        return a.offset == b.offset and used[0] == used[1]
    over = tuple(dict.fromkeys(a.labels + b.labels))
    device = next(map_.index.device for map_ in (a, b) if type(map_) is Gather)
    left, right = (positions(map_, over, device) for map_ in (a, b))
    if not (is_known(left) and is_known(right)):
        return False
    return torch.equal(*torch.broadcast_tensors(left, right))


def side_of_diagonal(block: Block, out_shape: Sequence[int], in_shape: Sequence[int]) -> int | None:
    """1 where all entries stand above the diagonal of the flattened matrix, −1 below, 0 on it; None where they differ.

    None too where tables cannot be looked at, or have labels of affine maps and so tell too little.
    """
    least = most = 0  # of the column less the row
    steps: dict[Label, int] = {}
    tables: dict[tuple[int, tuple[Label, ...]], tuple[Gather, int]] = {}
    for sign, maps, shape in ((1, block.wrt, in_shape), (-1, block.out, out_shape)):
        for map_, size in zip(reversed(maps), reversed(shape), strict=True):
            if type(map_) is Affine:
                least, most = least + sign * map_.offset, most + sign * map_.offset
                for label, step in map_.terms:
                    steps[label] = steps.get(label, 0) + sign * step
            else:
                key = id(map_.index), map_.labels
                tables[key] = map_, tables.get(key, (map_, 0))[1] + sign
            sign *= size
    reach = _reach([(map_, step) for map_, step in tables.values() if step])
    if reach is None:
        return None
    least, most = least + reach[0], most + reach[1]
    for label, step in steps.items():
        last = step * (label.size - 1)
        least, most = least + min(last, 0), most + max(last, 0)
    if least == most == 0:
        return 0
    return 1 if least > 0 else -1 if most < 0 else None


def _reach(tables: Sequence[tuple[Gather, int]]) -> tuple[int, int] | None:
    """Return the least and the most of a sum of multiples of tables; None where they cannot be looked at."""
    if not tables:
        return 0, 0
    if is_tracing() or not all(is_known(map_.index) for map_, _ in tables):
        return None
    over = tuple(labels_of(tuple([map_ for map_, _ in tables])))
    first, *others = [step * align(map_.index, map_.labels, over) for map_, step in tables]
    total = sum(others, first)
    low, high = total.aminmax() if total.numel() else (0, 0)
    return int(low), int(high)


def in_triangle(
    blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], triangle: str
) -> tuple[list[Block], bool]:
    """Return the blocks that may have entries in a triangle, "lower" or "upper", and whether one has others too."""
    look_at([table for block in blocks for table in spell(block).tables])
    other = 1 if triangle == "lower" else -1
    with unrecorded():
        sides = [side_of_diagonal(block, out_shape, in_shape) for block in blocks]
    kept = [block for block, side in zip(blocks, sides, strict=True) if side != other]
    return kept, None in sides


def tied(block: Block, pairs: Sequence[tuple[Map, Map, int]], device: torch.device) -> Block | None:
    """Return the entries of a block at which each pair of maps agrees (the int is the size of the dim), or None."""
    left, right, sizes = zip(*pairs, strict=True) if pairs else ((), (), ())
    by = unify(left, right, sizes, device)
    if by is None or any(label.size == 0 for label in labels(block)):
        return None
    if not by:
        return block
    out = tuple([substitute(map_, by) for map_ in block.out])
    wrt = tuple([substitute(map_, by) for map_ in block.wrt])
    value, on = take(block.value, block.on, by) if block.on else (block.value, ())
    return Block(value, on, out, wrt)
