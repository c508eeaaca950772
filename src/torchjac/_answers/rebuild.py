"""An answer taken apart into its tensors, and put together again from others: what a captured program returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from .._accumulate.factors import ProgramKey
from .._blocks.block import Block, valued
from .._blocks.maps import Gather, Map
from .._torch import lazy_clone, pytree
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks, inner
from .frame import SparseParts
from .operator import Jacobian

T = TypeVar("T")

#: Makes a part of the answer from the tensors that the program gives.
Build: TypeAlias = Callable[[Sequence[Tensor]], Any]

#: Makes a `Build`, once it is known of each tensor where among those given it stands, or which number it is.
RebuildPlan: TypeAlias = Callable[[Sequence[int | float]], Build]


class Rebuildable(NamedTuple):
    """The tensors of an answer that change from call to call, and how it is built from others like them.

    ``numbers`` tells which of them may be floats in every answer: values of blocks that have no dims.
    """

    tensors: list[Tensor]
    numbers: set[int]
    plan: RebuildPlan


def take_apart(answer: Any, is_constant: Callable[[Tensor], bool]) -> Rebuildable:
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

    def part(leaf: Any) -> RebuildPlan:
        if isinstance(leaf, Tensor):
            number = place(leaf)
            return lambda at: itemgetter(at[number])
        if isinstance(leaf, Jacobian):
            plan = form_plan(leaf.form)
            return lambda at: _operator(leaf, plan(at))
        if isinstance(leaf, SparseParts):
            places, number = [place_index(table) for table in leaf.places], place(leaf.values)
            return lambda at: _matrix(leaf, [_read(table, at) for table in places], itemgetter(at[number]))
        return lambda at: lambda given: leaf

    def form_plan(form: Form) -> RebuildPlan:
        if not isinstance(form, SumOfBlocks):
            plans = list(map(form_plan, inner(form)))
            return lambda at: _composite(type(form), [plan(at) for plan in plans])
        values: dict[int, int] = {}  # what several blocks share is one tensor
        for block in form.blocks:
            if isinstance(block.value, Tensor) and id(block.value) not in values:
                values[id(block.value)] = place(block.value)
                if block.value.dim() == 0:
                    numbers.add(values[id(block.value)])
        indices = {id(index): index for block in form.blocks for index in _indices(block)}
        tables = {key: place_index(index) for key, index in indices.items()}
        return lambda at: _sum(form, [_block(block, values, tables, at) for block in form.blocks])

    leaves, spec = pytree.tree_flatten(answer, is_leaf=lambda leaf: isinstance(leaf, (Jacobian, SparseParts)))
    parts = [part(leaf) for leaf in leaves]
    if spec.is_leaf():
        return Rebuildable(tensors, numbers, parts[0])
    return Rebuildable(tensors, numbers, lambda at: _tree(spec, [plan(at) for plan in parts]))


def _tree(spec: Any, parts: list[Build]) -> Build:
    return lambda given: pytree.tree_unflatten([build(given) for build in parts], spec)


def _matrix(leaf: SparseParts, places: list[Build], values: Build) -> Build:
    return lambda given: leaf._replace(
        places=tuple([table(given) for table in places]), values=values(given)
    ).tensor()


def _operator(leaf: Jacobian, form: Build) -> Build:
    return lambda given: _made(Jacobian, {"form": form(given), "report": leaf.report})


def _composite(kind: type[Form], parts: list[Build]) -> Build:
    if kind is LowRankUpdate:
        rest, low = parts
        return lambda given: LowRankUpdate(rest(given), low(given))
    return lambda given: ProductOfFactors(tuple([build(given) for build in parts]))


def _sum(form: Form, blocks: list[Block | Build]) -> Build:
    """Only blocks with tensors that change are made anew."""
    kept = {name: getattr(form, name) for name in ("out_shape", "in_shape", "dtype", "device")}
    kept["key"] = ProgramKey()
    changing = [(k, block) for k, block in enumerate(blocks) if not isinstance(block, Block)]

    def build(given: Sequence[Tensor]) -> SumOfBlocks:
        found: list[Any] = blocks.copy()
        for k, block in changing:
            found[k] = block(given)
        return _made(SumOfBlocks, {**kept, "blocks": tuple(found)})

    return build


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """Make a frozen dataclass of its fields, without the µs of its constructor."""
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


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
    """Read the places of a matrix; what is the same at each call is copied where a caller writes into the matrix."""
    if isinstance(table, Tensor):
        kept = lazy_clone(table.clone())  # no array of NumPy shares it
        return lambda given: lazy_clone(kept)
    return itemgetter(at[table])
