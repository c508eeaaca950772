"""The block: one term of a Jacobian, a small tensor of values plus the law that says where they stand.

J[o₁, o₂, … ; v₁, v₂, …] = Σ_labels  value[labels] · Π δ(o_d, out_d(labels)) · Π δ(v_d, wrt_d(labels))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from itertools import count
from math import prod
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from .maps import Affine, Gather, InternedMaps, Label, Map, align, bare, bare_label, labels_of

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])

#: How many laws of one kind are remembered.
KEPT = 4096


class TensorOptions(Protocol):
    """A dtype and a device, of which tensors are made: anything that has both, as a tensor has."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""

    @property
    def device(self) -> torch.device:
        """Where it is."""


class Block(NamedTuple):
    """One term of the Jacobian of an output with respect to a tensor.

    ``value`` is a number, constant along every label, or a tensor with one dim per label of ``on``;
    ``out`` and ``wrt`` hold an index map for each dim of the output and of the tensor.
    """

    value: Tensor | float
    on: tuple[Label, ...]
    out: tuple[Map, ...]
    wrt: tuple[Map, ...]

    def __str__(self) -> str:
        """Return the law in one line: ``J[i; i+1] = value[i], i<5`` for a block right of the diagonal."""
        names = dict(zip(labels(self), _letters(), strict=False))
        out, wrt = (", ".join(_spelled(map_, names) for map_ in maps) for maps in (self.out, self.wrt))
        value = f"{self.value:g}" if not isinstance(self.value, Tensor) else _of("value", self.on, names)
        return ", ".join(
            [f"J[{out}; {wrt}] = {value}", *(f"{name}<{label.size}" for label, name in names.items())]
        )


class Zeroed(Block):
    """A block of whose zeros more is known than its maps tell. A block made of it may forget that.

    Attributes:
        drops: whether its zeros drop what they meet further up, be it infinite or NaN, as where an op below selected:
            so it is carried on the way from the inputs up. On the way down the term itself drops what arrives.
        domain: affine forms of its labels; where one of them is negative, the value is zero.
    """

    drops: bool = False
    domain: tuple[Affine, ...] = ()

    @property
    def _remake(self) -> Callable[[Sequence[Any]], Block]:
        """The function that makes a block like this one of its four fields."""
        drops, domain = self.drops, self.domain
        return lambda fields: zeroed(Block(*fields), drops, domain)

    def _replace(self, **changes: Any) -> Zeroed:
        """Return the block with another value, or moved; what is known of its zeros stays."""
        return zeroed(Block(*self)._replace(**changes), self.drops, self.domain)  # type: ignore[return-value]


def zeroed(block: Block, drops: bool = False, domain: tuple[Affine, ...] = ()) -> Block:
    """Return the block with what is known of its zeros."""
    if not (drops or domain):
        return block if type(block) is Block else Block(*block)
    made = Zeroed(*block)
    made.drops, made.domain = drops, domain
    return made


def _letters() -> Iterator[str]:
    """Yield the letters i to z, and then i1, j1 and so on."""
    for round_ in count():
        yield from (f"{letter}{round_ or ''}" for letter in "ijklmnopqrstuvwxyz")


def _spelled(map_: Map, names: Mapping[Label, str]) -> str:
    if type(map_) is Gather:
        return _of("index", map_.labels, names)
    strides = {1: "+", -1: "-"}
    terms = "".join(strides.get(stride, f"{stride:+d}") + names[label] for label, stride in map_.terms)
    offset = f"{map_.offset:+d}" if map_.offset or not terms else ""
    return (terms + offset).removeprefix("+")


def _of(what: str, over: Sequence[Label], names: Mapping[Label, str]) -> str:
    return f"{what}[{', '.join(names[label] for label in over)}]"


def of_maps(find: F) -> F:
    """Return a function of a block's maps, which is called once for those that are remembered."""
    kept = lru_cache(maxsize=KEPT)(find)

    @wraps(find)
    def found(out: tuple[Map, ...], wrt: tuple[Map, ...], *more: Any) -> Any:
        remembered = type(out) is InternedMaps and type(wrt) is InternedMaps
        return kept(out, wrt, *more) if remembered else find(out, wrt, *more)

    return found  # type: ignore[return-value]  # of the same arguments


@of_maps
def _labels(out: tuple[Map, ...], wrt: tuple[Map, ...]) -> tuple[Label, ...]:
    return tuple(labels_of(out + wrt))


def labels(block: Block) -> tuple[Label, ...]:
    """Return all labels of a block, in the order in which its maps name them."""
    _, _, out, wrt = block
    return _labels(out, wrt)


def values_over(block: Block, over: tuple[Label, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the values of a block in full over labels, which hold all of its own."""
    value = block.value
    value = (
        align(value, block.on, over).to(dtype)
        if isinstance(value, Tensor)
        else torch.full((), value, dtype=dtype, device=device)
    )
    return value.expand([label.size for label in over])


def is_remembered(block: Block) -> bool:
    """Return whether the maps of a block are remembered, so that consequences are looked up by their identity."""
    return type(block.out) is InternedMaps and type(block.wrt) is InternedMaps


def stored(block: Block) -> int:
    """Return how many numbers a block holds, index tensors included."""
    value = block.value
    held = value.numel() if isinstance(value, Tensor) else 0
    if is_remembered(block):
        return held
    tables = [map_.index for map_ in block.out + block.wrt if type(map_) is Gather]
    if tables:
        held += sum({id(index): index.numel() for index in tables}.values())
    return held


def entries(block: Block) -> int:
    """Return how many entries of the Jacobian a block writes (an entry written twice counts twice)."""
    return prod(label.size for label in labels(block))


def interned(make: Callable[P, Block]) -> Callable[P, Block]:
    """Return a function of shapes and numbers that gives a block of affine maps, called once for each of them.

    Where entries stand is told by shapes, steps and positions; values come from the call. So the maps of a
    slice of a given shape are made once, and what two such laws make of each other is looked up by their
    identity. Nothing is assumed about the function: only algebra that was done before is used again.
    """

    @lru_cache(maxsize=KEPT)
    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Block:
        value, on, out, wrt = make(*args, **kwargs)
        kept = InternedMaps(out)
        return Block(value, on, kept, kept if wrt is out else InternedMaps(wrt))

    return made  # type: ignore[return-value]  # whose type forgets the arguments


def valued(block: Block, value: Tensor | float) -> Block:
    """Return the block with another value over the same labels."""
    return (
        Block(value, block.on, block.out, block.wrt) if type(block) is Block else block._replace(value=value)
    )


@interned
def identity(shape: tuple[int, ...]) -> Block:
    """Return the Jacobian of a tensor with respect to itself: no numbers at all."""
    maps = tuple([bare(Label(size)) for size in shape])
    return Block(1.0, (), maps, maps)


def diagonal_block(values: Tensor) -> Block:
    """Return the diagonal matrix of some values, at the places they have in a tensor."""
    block = identity(tuple(values.shape))
    return block._replace(value=values, on=labels(block))


@interned
def whole(out_shape: tuple[int, ...], wrt_shape: tuple[int, ...]) -> Block:
    """Return a block with a number for each entry, which is to be put in."""
    over = tuple([Label(size) for size in out_shape + wrt_shape])
    maps = tuple(map(bare, over))
    return Block(1.0, over, maps[: len(out_shape)], maps[len(out_shape) :])


def covers(maps: tuple[Map, ...], shape: Sequence[int]) -> bool:
    """Return whether maps are a label of its own for each dim of a tensor, over all of it."""
    return _covers(maps, tuple(shape)) if type(maps) is InternedMaps else _covers.__wrapped__(maps, shape)


@lru_cache(maxsize=KEPT)
def _covers(maps: tuple[Map, ...], shape: Sequence[int]) -> bool:
    over = [bare_label(map_) for map_ in maps]
    sizes = [label.size for label in over if label is not None]
    return sizes == list(shape) and len(set(over)) == len(over)


def tables_to(block: Block, device: torch.device) -> Block:
    """Return the block with its index tensors on a device, as its value is."""

    def move(map_: Map) -> Map:
        return Gather(map_.index.to(device), map_.labels) if type(map_) is Gather else map_

    return block._replace(out=tuple(map(move, block.out)), wrt=tuple(map(move, block.wrt)))


def fitted(block: Block, dtype: torch.dtype, device: torch.device) -> Block:
    """Return the block with its value in a dtype and on a device, index tensors on the device too."""
    value = block.value
    if isinstance(value, Tensor) and (value.dtype != dtype or value.device != device):
        block = block._replace(value=value.to(device, dtype))
    if any(type(map_) is Gather and map_.index.device != device for map_ in block.out + block.wrt):
        block = tables_to(block, device)
    return block


def is_dense(block: Block, shape: Sequence[int]) -> bool:
    """Return whether every dim of the output and of the tensor has a label of its own over its whole range.

    ``shape`` is that of both together.
    """
    if not isinstance(block.value, Tensor):
        return False
    maps = block.out + block.wrt
    seen = set()
    for map_, size in zip(maps, shape, strict=True):
        label = bare_label(map_)
        if label is None or label.size != size:
            return False
        seen.add(label)
    return len(seen) == len(maps) and len(block.on) == len(maps)
