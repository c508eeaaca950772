"""An answer taken apart into its tensors, and put together again from others: what a captured program returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from .._blocks.block import Block, valued
from .._blocks.maps import Gather, Map
from .._torch import pytree
from .factored import Chain
from .operator import Jacobian
from .sparse import SparseParts

#: Makes a part of the answer from the tensors that the program gives.
Build: TypeAlias = Callable[[Sequence[Tensor]], Any]

#: Makes a `Build`, once it is known of each tensor where among those given it stands, or which number it is.
Plan: TypeAlias = Callable[[Sequence[int | float]], Build]


class Apart(NamedTuple):
    """The tensors of an answer that change from call to call, and how it is built from others like them.

    ``numbers`` tells which of them may be floats in every answer: values of blocks that have no dims.
    """

    tensors: list[Tensor]
    numbers: set[int]
    plan: Plan


def take_apart(answer: Any, is_constant: Callable[[Tensor], bool]) -> Apart:
    """Take an answer apart.

    An operator or a sparse matrix holds index tensors too: those that are constants stay where they are.
    """
    tensors: list[Tensor] = []
    numbers: set[int] = set()

    def place(tensor: Tensor) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    def place_index(index: Tensor) -> Tensor | int:
        return index if is_constant(index) else place(index)

    def part(leaf: Any) -> Plan:
        if isinstance(leaf, Tensor):
            number = place(leaf)
            return lambda at: itemgetter(at[number])
        if isinstance(leaf, Jacobian) and leaf.factors:
            factors = [part(factor) for factor in leaf.factors]
            return lambda at: _product(leaf, [factor(at) for factor in factors])
        if isinstance(leaf, Jacobian):
            values: dict[int, int] = {}  # what several blocks share is one tensor
            for block in leaf.blocks:
                if isinstance(block.value, Tensor) and id(block.value) not in values:
                    values[id(block.value)] = place(block.value)
                    if block.value.dim() == 0:
                        numbers.add(values[id(block.value)])
            indices = {id(index): index for block in leaf.blocks for index in _indices(block)}
            tables = {key: place_index(index) for key, index in indices.items()}
            return lambda at: _operator(leaf, [_block(block, values, tables, at) for block in leaf.blocks])
        if isinstance(leaf, SparseParts):
            places, number = [place_index(table) for table in leaf.places], place(leaf.values)
            return lambda at: _matrix(leaf, [_read(table, at) for table in places], itemgetter(at[number]))
        return lambda at: lambda given: leaf

    leaves, spec = pytree.tree_flatten(answer, is_leaf=lambda leaf: isinstance(leaf, (Jacobian, SparseParts)))
    parts = [part(leaf) for leaf in leaves]
    if spec.is_leaf():
        return Apart(tensors, numbers, parts[0])
    return Apart(tensors, numbers, lambda at: _tree(spec, [plan(at) for plan in parts]))


def _tree(spec: Any, parts: list[Build]) -> Build:
    return lambda given: pytree.tree_unflatten([build(given) for build in parts], spec)


def _matrix(leaf: SparseParts, places: list[Build], values: Build) -> Build:
    return lambda given: leaf._replace(
        places=tuple([table(given) for table in places]), values=values(given)
    ).tensor()


def _product(leaf: Jacobian, factors: list[Build]) -> Build:
    around = _around(leaf)
    return lambda given: around(Chain([build(given) for build in factors]))


def _operator(leaf: Jacobian, blocks: list[Block | Build]) -> Build:
    """Only blocks with tensors that change are made anew."""
    around = _around(leaf)
    changing = [(k, block) for k, block in enumerate(blocks) if not isinstance(block, Block)]

    def build(given: Sequence[Tensor]) -> Jacobian:
        found: list[Any] = blocks.copy()
        for k, block in changing:
            found[k] = block(given)
        return around(tuple(found))

    return build


def _around(leaf: Jacobian) -> Callable[[Sequence[Block]], Jacobian]:
    """`dataclasses.replace` of the blocks, without its µs: all else is taken as it is."""
    kept = {field.name: getattr(leaf, field.name) for field in fields(leaf) if field.name != "blocks"}

    def make(blocks: Sequence[Block]) -> Jacobian:
        made = object.__new__(Jacobian)
        made.__dict__.update(kept, blocks=blocks)
        return made

    return make


def _block(
    block: Block, values: dict[int, int], tables: dict[int, Tensor | int], at: Sequence[int | float]
) -> Block | Build:
    value = block.value
    number: Any = at[values[id(value)]] if isinstance(value, Tensor) else value
    fixed = not isinstance(value, Tensor) or isinstance(number, float)
    if all(isinstance(tables[id(index)], Tensor) for index in _indices(block)):
        return block._replace(value=number) if fixed else lambda given: valued(block, given[number])
    read = {key: _read(table, at) for key, table in tables.items()}

    def fill(map_: Map, given: Sequence[Tensor]) -> Map:
        return Gather(read[id(map_.index)](given), map_.labels) if type(map_) is Gather else map_

    return lambda given: block._replace(
        value=number if fixed else given[number],
        out=tuple([fill(map_, given) for map_ in block.out]),
        wrt=tuple([fill(map_, given) for map_ in block.wrt]),
    )


def _indices(block: Block) -> list[Tensor]:
    return [map_.index for map_ in block.out + block.wrt if type(map_) is Gather]


def _read(table: Tensor | int, at: Sequence[int | float]) -> Build:
    if isinstance(table, Tensor):
        return lambda given: table
    return itemgetter(at[table])
