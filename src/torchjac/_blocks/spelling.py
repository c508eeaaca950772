"""Maps up to a renaming of their labels: blocks of one law share a spelling, by which what follows from it is found."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from .block import Block, of_maps
from .maps import Affine, Label, Map


class CanonicalMaps(NamedTuple):
    """Maps up to a renaming of labels: a key, their labels in the order of the key, and their tables."""

    key: tuple[Any, ...]
    over: tuple[Label, ...]
    tables: tuple[Tensor, ...]

    @property
    def law(self) -> object:
        """The key and the very tables that it names."""
        return self.key, *map(id, self.tables)


def spell(block: Block) -> CanonicalMaps:
    """Return the maps of a block in the spelling that all blocks of the same law share."""
    return spell_maps(block.out, block.wrt)


@of_maps
def spell_maps(out: tuple[Map, ...], wrt: tuple[Map, ...]) -> CanonicalMaps:
    """Return the maps of a block in the spelling that all of the same law share."""
    number: dict[Label, int] = {}
    key: list[Any] = []
    tables: list[Tensor] = []
    for map_ in (*out, *wrt):
        if type(map_) is Affine:
            key.append(map_.offset)
            for label, step in sorted(map_.terms, key=lambda term: -term[1]):
                key.append((number.setdefault(label, len(number)), label.size, step))
        else:
            key.append("table")
            tables.append(map_.index)
            for label in map_.labels:
                key.append((number.setdefault(label, len(number)), label.size))
    return CanonicalMaps(tuple(key), tuple(number), tuple(tables))
