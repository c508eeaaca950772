"""Which entries of a Jacobian are not zero by structure: their number, a bound of it, and their positions."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from .._blocks.block import entries
from .._blocks.coordinates import covers_once
from .._blocks.domain import entries_inside, inside
from .._blocks.pattern_cache import pattern_of
from .assembly import assemble
from .factored import is_full, most_entries
from .forms import Form, LowRankUpdate, ProductOfFactors, SumOfBlocks, kept

#: Up to this many entries are counted for `repr`; beyond, it tells a bound instead.
CHEAP = 10_000_000


def nnz(form: Form) -> int:
    """Return the number of entries that are not zero by structure: no value is looked at.

    Raises:
        RuntimeError: on the meta device where several blocks may name the same entry, which tables tell.
    """
    return kept(form, "nnz", lambda: _nnz(form))


def _nnz(form: Form) -> int:
    if isinstance(form, ProductOfFactors) and is_full(form):
        return form.shape.numel()
    if len(form.blocks) == 1 and covers_once(form.blocks[0], form.shape):
        return entries_inside(form.blocks[0])
    pattern = pattern_of(inside(form.blocks, form.device), form.out_shape, form.in_shape, form.device)
    return coordinates(form)[0].numel() if pattern is None else pattern.nnz


@singledispatch
def bound(form: Form) -> int | None:
    """Return a bound of the number of nonzeros where these are not counted unasked; None where they are."""
    raise NotImplementedError


@bound.register(SumOfBlocks)
def bound_of_sum(form: SumOfBlocks) -> int | None:
    """Add up what the blocks name."""
    return None if is_cheap(form) else min(form.shape.numel(), sum(map(entries, form.blocks)))


@bound.register(ProductOfFactors)
def bound_of_product(form: ProductOfFactors) -> int | None:
    """Follow the maps from factor to factor."""
    return None if is_full(form) else most_entries(form)


@bound.register(LowRankUpdate)
def bound_of_update(form: LowRankUpdate) -> int:
    """Take all entries, as the product of low rank does."""
    return form.shape.numel()


def nnz_in_words(form: Form) -> str:
    """Return the number of nonzeros, and their share, or a bound of it."""
    most = bound(form)
    if most is not None:
        return f"at most {most:,}"
    size = form.shape.numel()
    return f"{nnz(form):,}" + (f" ({nnz(form) / size:.2g} of {size:,})" if size else "")


def is_cheap(form: Form) -> bool:
    """Return whether the entries can be counted, and are few enough to be where nobody asked for a count."""
    if form.device.type == "meta" or not isinstance(form, SumOfBlocks):
        return False
    return sum(map(entries, form.blocks)) <= CHEAP


def coordinates(form: Form) -> tuple[Tensor, Tensor]:
    """Return sorted positions in the flattened matrix and the values there."""
    found = assemble(*form.ends)
    return found.row().long() * max(form.matrix_shape[1], 1) + found.column, found.values
