"""Products of factors: which neighbours are multiplied, and bounds that follow from the factors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod

from .._blocks.block import Block, entries, labels
from .._blocks.coordinates import covers_once
from .._blocks.domain import entries_inside
from .._blocks.maps import Affine, Map, labels_of
from .forms import Form, ProductOfFactors, multiplied


def factors_of(form: Form) -> tuple[Form, ...]:
    """Return the factors of a product, or the form itself as the only one."""
    return form.factors if isinstance(form, ProductOfFactors) else (form,)


def chained(forms: Sequence[Form]) -> Form:
    """Return the product of some forms, with those factors that hold less apart than together.

    Two neighbours are multiplied where their product, written out, holds no more than they do.
    """
    found = [factor for form in forms for factor in factors_of(form)]
    at = 0
    while at < len(found) - 1:
        a, b = found[at : at + 2]
        if not holds_less(a, b):
            found[at : at + 2] = [multiplied(a, b)]
            at = max(at - 1, 0)
        else:
            at += 1
    return found[0] if len(found) == 1 else ProductOfFactors(tuple(found))


def holds_less(a: Form, b: Form) -> bool:
    """Return whether two factors hold less apart than their product would, written out."""
    return a.stored + b.stored < prod(a.out_shape) * prod(b.in_shape)


def rank_bound(form: Form) -> int:
    """Return the most independent rows it can have, by its shapes and those between its factors."""
    return min(map(prod, [form.out_shape, *(factor.in_shape for factor in factors_of(form))]))


def most_entries(form: ProductOfFactors) -> int:
    """Return a bound of the entries that the product names, from the maps of two factors; all of them for more."""
    size = prod(form.shape)
    if len(form.factors) > 2:
        return size
    left, right = form.factors
    pairs = [(a, b) for a in left.blocks for b in right.blocks]
    return min(size, sum(min(_paths(a, b.out, b), _paths(b, a.wrt, a)) for a, b in pairs))


def _paths(block: Block, meeting: tuple[Map, ...], other: Block) -> int:
    """Return the entries of a block, each times those of another one that meet it; huge if that is unknown."""
    if not all(type(map_) is Affine and len(map_.terms) < 2 for map_ in meeting):
        return sys.maxsize
    bound = labels_of(meeting)
    return entries(block) * prod(label.size for label in labels(other) if label not in bound)


def is_full(form: ProductOfFactors) -> bool:
    """Return whether every entry is named, told by factors that each name all of theirs."""
    return all(
        any(
            covers_once(block, factor.shape) and entries_inside(block) == factor.shape.numel()
            for block in factor.blocks
        )
        for factor in form.factors
    )
