"""Adding blocks: those with the same maps add their values, the others stay side by side in a list."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .block import Block
from .coordinates import coordinates
from .cost import coalesces, densifies
from .maps import Affine, Gather, Label, align, bare
from .write import dense


def merge(blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: Tensor) -> list[Block]:
    """The same Jacobian in fewer blocks; ``like`` gives dtype and device, the shapes those of its two ends."""
    if len(blocks) < 2:
        return blocks
    merged: dict[tuple, Block] = {}
    for block in blocks:
        key = _key(block)
        other = merged.get(key)
        merged[key] = block if other is None else _add(other, block)
    blocks = list(merged.values())
    if len(blocks) < 2:
        return blocks
    if densifies(blocks, out_shape, wrt_shape):
        return [dense_block(blocks, out_shape, wrt_shape, like)]
    if coalesces(blocks):
        return [_coalesce(blocks, out_shape, wrt_shape, like)]
    return blocks


def dense_block(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: Tensor
) -> Block:
    """All blocks written into one that holds every entry."""
    over = tuple(Label(size) for size in (*out_shape, *wrt_shape))
    maps = tuple(bare(label) for label in over)
    value = dense(blocks, out_shape, wrt_shape, like)
    return Block(value, over, maps[: len(out_shape)], maps[len(out_shape) :])


def _key(block: Block) -> tuple:
    """Equal for two blocks exactly when a renaming of labels makes their maps the same."""
    number: dict[Label, int] = {}
    spelled: list[tuple] = []
    for map_ in block.out + block.wrt:
        if type(map_) is Affine:
            terms = map_.terms
            if len(terms) > 1:
                terms = tuple(sorted(terms, key=lambda term: (-term[1], number.get(term[0], 1 << 60))))
            spelled.append(
                (map_.offset, *[(number.setdefault(lb, len(number)), lb.size, stride) for lb, stride in terms])
            )
        else:
            spelled.append((id(map_.index), "gather", *[number.setdefault(lb, len(number)) for lb in map_.labels]))
    return tuple(spelled)


def _add(first: Block, second: Block) -> Block:
    """The sum of two blocks with the same maps."""
    a, b = first.value, second.value
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return first._replace(value=a + b)
    rename: dict[Label, Label] = {}
    for mine, theirs in zip(first.out + first.wrt, second.out + second.wrt, strict=True):
        pairs = zip(_ordered(theirs, rename), _ordered(mine, None), strict=True)
        rename.update({label: other for label, other in pairs if label not in rename})
    on_second = tuple(rename[label] for label in second.on)
    over = tuple(dict.fromkeys(first.on + on_second))
    a = align(a, first.on, over) if isinstance(a, Tensor) else a
    b = align(b, on_second, over) if isinstance(b, Tensor) else b
    return Block(a + b, over, first.out, first.wrt)


def _ordered(map_: Affine | Gather, rename: dict[Label, Label] | None) -> list[Label]:
    """The labels of a map in the order `_key` spells them."""
    if type(map_) is Gather:
        return list(map_.labels)
    return [label for label, _ in sorted(map_.terms, key=lambda term: -term[1])]


def _coalesce(
    blocks: list[Block], out_shape: Sequence[int], wrt_shape: Sequence[int], like: Tensor
) -> Block:
    """Many small blocks as one list of coordinates and values."""
    shape = (*out_shape, *wrt_shape)
    where, value = coordinates(blocks, shape, like)
    label = Label(where.numel())
    maps: list[Gather] = []
    for size in reversed(shape):
        maps.append(Gather(where % max(size, 1), (label,)))
        where = where // max(size, 1)
    maps.reverse()
    return Block(value, (label,), tuple(maps[: len(out_shape)]), tuple(maps[len(out_shape) :]))
