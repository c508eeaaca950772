"""Adding blocks: those with the same maps add their values, the others stay side by side in a list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from .block import KEPT, Block, is_remembered, whole
from .coordinates import coordinate_block
from .cost import coordinates_pay, densifies, is_long
from .maps import Affine, Gather, Label, Map, Maps, align
from .write import dense


def merge(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: Tensor
) -> list[Block]:
    """The same Jacobian in fewer blocks; ``like`` gives dtype and device, the shapes those of its two ends."""
    if len(blocks) < 2:
        return blocks
    same: dict[tuple[int, int], Block] = {}  # the very same maps, as sums of products of diagonals have
    for block in blocks:
        place = (id(block.out), id(block.wrt))
        other = same.get(place)
        same[place] = (
            block if other is None else Block(*_sum(other, block.value, block.on), block.out, block.wrt)
        )
    if len(same) > 1:
        merged: dict[tuple, Block] = {}
        for block in same.values():
            key = _key(block)
            other = merged.get(key)
            merged[key] = block if other is None else _add(other, block)
        same = merged
    blocks = list(same.values())
    if len(blocks) < 2:
        return blocks
    if densifies(blocks, out_shape, wrt_shape):
        return [dense_block(blocks, out_shape, wrt_shape, like)]
    if is_long(blocks):
        # On the meta device no value tells which coordinates are the same.
        pays = like.device.type != "meta" and coordinates_pay(blocks, out_shape, wrt_shape)
        form = coordinate_block if pays else dense_block
        return [form(blocks, out_shape, wrt_shape, like)]
    return blocks


def dense_block(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: Tensor
) -> Block:
    """All blocks written into one that holds every entry."""
    value = dense(blocks, out_shape, wrt_shape, like)
    return whole(tuple(out_shape), tuple(wrt_shape))._replace(value=value)


def _key(block: Block) -> tuple:
    """Equal for two blocks exactly when a renaming of labels makes their maps the same."""
    _, _, out, wrt = block
    return _spelled(out, wrt) if is_remembered(block) else _spell(out + wrt)


@lru_cache(maxsize=KEPT)
def _spelled(out: Maps, wrt: Maps) -> tuple:
    return _spell(out + wrt)


def _spell(maps: tuple[Map, ...]) -> tuple:
    number: dict[Label, int] = {}
    spelled: list[object] = []
    for map_ in maps:
        if type(map_) is Affine:
            terms = map_[1]
            spelled.append(map_[0])
            for label, stride in sorted(terms, key=_falling) if len(terms) > 1 else terms:
                spelled.append((number.setdefault(label, len(number)), label.size, stride))
        else:
            spelled.append(id(map_.index))
            for label in map_.labels:
                spelled.append((number.setdefault(label, len(number)), label.size))
    return tuple(spelled)


def _add(first: Block, second: Block) -> Block:
    """The sum of two blocks with the same maps."""
    rename: dict[Label, Label] = {}
    if second.on:
        for mine, theirs in zip(first.out + first.wrt, second.out + second.wrt, strict=True):
            for label, other in zip(_ordered(theirs), _ordered(mine), strict=True):
                rename.setdefault(label, other)
    value, on = _sum(first, second.value, tuple([rename[label] for label in second.on]))
    return Block(value, on, first.out, first.wrt)


def _sum(first: Block, b: Tensor | float, on: tuple[Label, ...]) -> tuple[Tensor | float, tuple[Label, ...]]:
    """The value of a block plus another over the labels ``on``."""
    a = first.value
    if on == first.on or not on:
        return a + b, first.on
    if not first.on:
        return a + b, on
    over = tuple(dict.fromkeys(first.on + on))
    return align(a, first.on, over) + align(b, on, over), over


def _ordered(map_: Map) -> Sequence[Label]:
    """The labels of a map in the order `_key` spells them."""
    if type(map_) is Gather:
        return map_.labels
    terms = map_.terms
    return [label for label, _ in (sorted(terms, key=_falling) if len(terms) > 1 else terms)]


def _falling(term: tuple[Label, int]) -> int:
    return -term[1]
