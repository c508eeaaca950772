"""An answer taken apart into its tensors, and put together again from others: what a captured program returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch import Tensor

# Private, but it is the tree that torch.func's own transforms accept (torch 2.9-2.13).
from torch.utils import _pytree as pytree

from .._blocks.block import Block
from .._blocks.maps import Gather, Map
from .chain import Chain
from .operator import Jacobian
from .sparse import SparseParts

#: Makes a part of the answer from the tensors that the program gives
Build: TypeAlias = Callable[[Sequence[Tensor]], Any]


def take_apart(answer: Any, is_constant: Callable[[Tensor], bool]) -> tuple[list[Tensor], Build]:
    """The tensors of an answer that change from call to call, and what builds the answer from others like them.

    An operator or a sparse matrix holds index tensors too: those that are constants stay where they are.
    """
    outputs: list[Tensor] = []

    def place(tensor: Tensor) -> Build:
        number = len(outputs)
        outputs.append(tensor)
        return lambda given: given[number]

    def place_index(tensor: Tensor) -> Build:
        return (lambda given: tensor) if is_constant(tensor) else place(tensor)

    def part(leaf: Any) -> Build:
        if isinstance(leaf, Tensor):
            return place(leaf)
        if isinstance(leaf, Jacobian) and leaf.factors:
            factors = [part(factor) for factor in leaf.factors]
            return lambda given: replace(leaf, blocks=Chain([build(given) for build in factors]))
        if isinstance(leaf, Jacobian):
            blocks = [_block(block, place, place_index) for block in leaf.blocks]
            return lambda given: replace(leaf, blocks=tuple([build(given) for build in blocks]))
        if isinstance(leaf, SparseParts):
            places, values = [place_index(table) for table in leaf.places], place(leaf.values)
            return lambda given: leaf._replace(
                places=tuple([table(given) for table in places]), values=values(given)
            ).tensor()
        return lambda given: leaf

    leaves, spec = pytree.tree_flatten(answer, is_leaf=lambda leaf: isinstance(leaf, (Jacobian, SparseParts)))
    parts = [part(leaf) for leaf in leaves]
    if spec.is_leaf():
        return outputs, parts[0]
    return outputs, lambda given: pytree.tree_unflatten([build(given) for build in parts], spec)


def _block(block: Block, place: Callable[[Tensor], Build], place_index: Callable[[Tensor], Build]) -> Build:
    value = place(block.value) if isinstance(block.value, Tensor) else None
    tables: dict[int, Build] = {}
    for map_ in block.out + block.wrt:
        if type(map_) is Gather and id(map_.index) not in tables:
            tables[id(map_.index)] = place_index(map_.index)
    if not tables:
        return (lambda given: block) if value is None else (lambda given: block._replace(value=value(given)))

    def fill(map_: Map, found: dict[int, Tensor]) -> Map:
        return Gather(found[id(map_.index)], map_.labels) if type(map_) is Gather else map_

    def build(given: Sequence[Tensor]) -> Block:
        found = {key: table(given) for key, table in tables.items()}
        return Block(
            block.value if value is None else value(given),
            block.on,
            tuple([fill(map_, found) for map_ in block.out]),
            tuple([fill(map_, found) for map_ in block.wrt]),
        )

    return build
