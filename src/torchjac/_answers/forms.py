"""The forms of an answer: a sum of blocks, a product of factors, and the sum of one of each.

They are data. Operations on them are functions found by the type of the form; one that is registered for no more than
any form looks at ``blocks``, which a product and a low-rank update multiply out and add where they are first read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from .._accumulate.factors import ProgramKey
from .._accumulate.planned import planned_answer
from .._blocks.block import Block, stored, valued
from .._blocks.lazy import lazy
from .._blocks.maps import Gather
from .._blocks.merge import merge
from .._blocks.product import product

T = TypeVar("T")

#: The arguments of a function of blocks: they, the shapes of output and input, and what has their dtype and device.
Ends: TypeAlias = "tuple[tuple[Block, ...], tuple[int, ...], tuple[int, ...], Form]"


class Form:
    """A matrix with a row for each entry of the output and a column for each of the input."""

    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    blocks: tuple[Block, ...]

    @property
    def stored(self) -> int:
        """The number of values and indices held."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        """``out_shape + in_shape``."""
        return torch.Size((*self.out_shape, *self.in_shape))

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return prod(self.out_shape), prod(self.in_shape)

    @property
    def ends(self) -> Ends:
        """The arguments of a function of blocks."""
        return self.blocks, self.out_shape, self.in_shape, self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept with the form, and by what it is known again: a copy makes it anew."""
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "key")}


@dataclass(frozen=True, eq=False)
class SumOfBlocks(Form):
    """The sum of some blocks; those that a program gives are known again by its ``key``."""

    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    blocks: tuple[Block, ...]
    key: ProgramKey | None = None

    @property
    def stored(self) -> int:
        """The numbers that the blocks hold, index tensors included."""
        return sum(map(stored, self.blocks))


@dataclass(frozen=True, eq=False)
class ProductOfFactors(Form):
    """A product of two factors or more, the output's first; none of them is a product."""

    factors: tuple[Form, ...]

    def __post_init__(self) -> None:
        first = self.factors[0]
        _set(self, first.out_shape, self.factors[-1].in_shape, first)

    @property
    def stored(self) -> int:
        """The numbers that the factors hold."""
        return sum(factor.stored for factor in self.factors)

    @lazy
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the product; the matrices between are multiplied where that is cheapest."""
        factors = list(self.factors)
        while len(factors) > 1:
            at = min(range(len(factors) - 1), key=lambda n: _work(factors[n], factors[n + 1]))
            factors[at : at + 2] = [multiplied(factors[at], factors[at + 1])]
        return factors[0].blocks


@dataclass(frozen=True, eq=False)
class LowRankUpdate(Form):
    """A sum of blocks, which has structure, plus a product of low rank."""

    rest: SumOfBlocks
    low: ProductOfFactors

    def __post_init__(self) -> None:
        _set(self, self.rest.out_shape, self.rest.in_shape, self.rest)

    @property
    def stored(self) -> int:
        """The numbers that both terms hold."""
        return self.rest.stored + self.low.stored

    @lazy
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of both terms, added where they stand at the same places."""
        return tuple(merge([*self.rest.blocks, *self.low.blocks], self.out_shape, self.in_shape, self))


def multiplied(a: Form, b: Form) -> SumOfBlocks:
    """Return the product of two forms as a sum of blocks."""
    found = product(a.blocks, b.blocks, (a.out_shape, a.in_shape, b.in_shape), a)
    return SumOfBlocks(a.out_shape, b.in_shape, a.dtype, a.device, tuple(found))


def inner(form: Form) -> tuple[Form, ...]:
    """Return the factors or the terms of a form; none of a sum of blocks."""
    if isinstance(form, ProductOfFactors):
        return form.factors
    return (form.rest, form.low) if isinstance(form, LowRankUpdate) else ()


def sums_of(form: Form) -> tuple[SumOfBlocks, ...]:
    """Return the sums of blocks that the form is made of."""
    if isinstance(form, SumOfBlocks):
        return (form,)
    return tuple([each for part in inner(form) for each in sums_of(part)])


def parts(form: Form) -> tuple[str, int]:
    """Return the name and the number of the parts that the form is kept as."""
    if isinstance(form, ProductOfFactors):
        return "factors", len(form.factors)
    return ("terms", 2) if isinstance(form, LowRankUpdate) else ("blocks", len(form.blocks))


def kept(form: Form, name: Hashable, make: Callable[[], T]) -> T:
    """Return what was made of a form before, or make it, whatever grad mode it is first asked for in, and keep it.

    It must not hold the form, which then would go only when the garbage collector runs.
    """
    there = vars(form).setdefault("_kept", {})
    if name not in there:
        with torch.enable_grad():
            there[name] = make()
    found: T = there[name]
    return found


def repeated(form: Form, asked: Hashable, make: Callable[[Form], T]) -> T:
    """Return what is made of a form's blocks alone, by a program where it was often asked of forms by one program."""
    if not isinstance(form, SumOfBlocks) or form.key is None:
        return make(form)
    blocks = form.blocks
    tables = [map_.index for block in blocks for map_ in block.out + block.wrt if type(map_) is Gather]

    def compute(parts: Sequence[Tensor | float]) -> T:
        pairs = zip(blocks, parts[: len(blocks)], strict=True)
        return make(replace(form, blocks=tuple([valued(block, value) for block, value in pairs]), key=None))

    return planned_answer(form.key, asked, (*[block.value for block in blocks], *tables), compute)


def told(form: Form) -> tuple[str, ...]:
    """Return how products and systems were done, by what is kept with the form."""
    made = vars(form).get("_kept", {}).values()
    return tuple(filter(None, [getattr(each, "told", "") for each in made]))


def _work(a: Form, b: Form) -> int:
    """Return the multiplications of a dense product."""
    return prod(a.out_shape) * prod(a.in_shape) * prod(b.in_shape)


def _set(form: Form, out_shape: tuple[int, ...], in_shape: tuple[int, ...], like: Form) -> None:
    """Set what follows from the fields of a frozen form."""
    vars(form).update(out_shape=out_shape, in_shape=in_shape, dtype=like.dtype, device=like.device)
