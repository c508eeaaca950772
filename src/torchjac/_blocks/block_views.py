"""The two ends of a block: swapped, joined into one dim, relabelled, or restricted to where they agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .block import Block, labels
from .maps import Affine, Gather, Label, Map, Substitution, bare, positions, substitute, take
from .tracing import is_known
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

    None for tables too, whose positions are not looked at.
    """
    row, column = joined(block.out, out_shape), joined(block.wrt, in_shape)
    if type(row) is not Affine or type(column) is not Affine:
        return None
    steps = dict(column.terms)
    for label, step in row.terms:
        steps[label] = steps.get(label, 0) - step
    first = column.offset - row.offset
    reach = [step * (label.size - 1) for label, step in steps.items()]
    least, most = first + sum(min(each, 0) for each in reach), first + sum(max(each, 0) for each in reach)
    if least == most == 0:
        return 0
    return 1 if least > 0 else -1 if most < 0 else None


def in_triangle(
    blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], triangle: str
) -> list[Block]:
    """Return the blocks that may have entries in a triangle, "lower" or "upper", of the flattened matrix."""
    other = 1 if triangle == "lower" else -1
    return [block for block in blocks if side_of_diagonal(block, out_shape, in_shape) != other]


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
