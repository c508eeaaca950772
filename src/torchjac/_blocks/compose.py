"""The one law of composition: (∂out/∂mid) · (∂mid/∂wrt), both blocks, is again a block.

Bind the local Jacobian's output maps to the block's maps of the tensor between them, substitute, multiply
the values with labels aligned, and sum over every label that is not in the answer: an einsum.

What the maps make of each other is a `Law`, worked out without a value; between remembered maps it is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .block import Block, Zeroed, covers, labels, zeroed
from .domain import domain_of, moved, without
from .dropped_zeros import can_look, select, select_summed
from .maps import (
    Gather,
    InternedMaps,
    Label,
    Map,
    Reading,
    Substitution,
    align,
    bare,
    bare_label,
    labels_of,
    read,
    reading,
    substitute,
)
from .multiply import Joint, joint, multiply
from .unify import unify


class Law(NamedTuple):
    """The composition of two blocks' maps: the product's maps, and how the two values are read and multiplied.

    ``times`` is how often an entry that no value distinguishes is summed; ``gone`` are the labels that end here;
    ``affine`` tells that no table was made, which would belong to one device. ``by`` is where the two meet, once the
    local Jacobian's labels are ``renamed``.
    """

    out: tuple[Map, ...]
    wrt: tuple[Map, ...]
    left: Reading
    right: Reading
    joint: Joint
    times: int
    gone: frozenset[Label]
    affine: bool
    by: Substitution
    renamed: Substitution


#: Laws between remembered maps; None where the product is zero. Emptied when `MOST_LAWS` are kept.
_laws: dict[tuple[object, ...], Law | None] = {}
MOST_LAWS = 1 << 14

_UNKNOWN: Any = object()


def compose(
    block: Block, local: Block, shape: Sequence[int], device: torch.device, selects: bool = False
) -> Block | None:
    """Return the product of a block and a local Jacobian over a tensor of the given shape; None if it is zero.

    Where the local Jacobian ``selects``, its zeros drop what they meet, even if that is not finite; so do those of a
    `Zeroed` block that says so, but for what is summed.
    """
    left, on_left, out, mid = block
    right, on_right, other, wrt = local
    if wrt is other and type(right) is float and right == 1.0 and covers(other, shape):
        return block  # a copy, as sums have on both sides
    if (
        type(mid) is InternedMaps
        and type(other) is InternedMaps
        and type(out) is InternedMaps
        and type(wrt) is InternedMaps
    ):
        key = (out, mid, on_left, other, wrt, on_right)
        law: Law | None = _laws.get(key, _UNKNOWN)
        if law is _UNKNOWN:
            law = _law(block, local, shape, device)
            if law is None or law.affine:
                law = _remember(key, law)
    else:
        law = _law(block, local, shape, device)
    if law is None:
        return None
    value = product(law, selects, left, right, type(block) is Zeroed and block.drops)
    if isinstance(value, Tensor) and is_without_memory(value, device):
        return None
    made = Block(value, law.joint.on, law.out, law.wrt)
    if type(block) is Block and type(local) is Block:
        return made
    forms = moved(domain_of(block), law.by) + moved(moved(domain_of(local), law.renamed), law.by)
    return zeroed(made, type(block) is Zeroed and block.drops, without(forms, law.gone))


def is_without_memory(value: Tensor, device: torch.device) -> bool:
    """Return whether a value is the zeros of a tangent that is zero: a trace loses their device (torch 2.9-2.14)."""
    return value.is_meta and device.type != "meta"


def product(
    law: Law, selects: bool, left: Tensor | float, right: Tensor | float, selected: bool = False
) -> Tensor | float:
    """Return the value of a product, over the labels of its law; zeros of either side may drop what they meet."""
    _, _, how_left, how_right, how, times, gone, *_ = law
    if how_left.steps:
        left = read(how_left, left)
    if how_right.steps:
        right = read(how_right, right)
    if times != 1:
        left = left * times
    if selects or selected:
        if how.other_dims or how.equation or ((how.matrix or how.batches) and can_look(left)):
            return select_summed(left, right, how, (selected, selects))  # type: ignore[arg-type]  # no numbers
        found = select(left, how_left.on, right, how_right.on, how.on, (selected, selects))
        if found is not None:
            summed = joint(found[1], (), gone)
            total = multiply(found[0], 1.0, summed)
            return align(total, summed.on, how.on)  # type: ignore[arg-type]  # of a tensor
    return multiply(left, right, how)


def _remember(key: tuple[object, ...], law: Law | None) -> Law | None:
    if law is not None:
        out, wrt = (maps if type(maps) is InternedMaps else InternedMaps(maps) for maps in (law.out, law.wrt))
        law = law._replace(out=out, wrt=wrt)
    if len(_laws) >= MOST_LAWS:
        _laws.clear()
    _laws[key] = law
    return law


def _law(block: Block, local: Block, shape: Sequence[int], device: torch.device) -> Law | None:
    """Work out the product of two blocks of which only the maps and the labels of the values are looked at."""
    if local.wrt is local.out and covers(local.out, shape):
        return _scaling(block, local)
    renamed = _apart(block, local)
    local_out, local_wrt, on_local = _renamed(local, renamed)
    by = _bind(block.wrt, local_out, shape)
    mid, out = block.wrt, block.out
    left = Reading((), block.on)
    if by is None:
        by = unify(block.wrt, local_out, shape, device)
        if by is None:
            return None
        mid = tuple([substitute(map_, by) for map_ in block.wrt + local_out])
        out = tuple([substitute(map_, by) for map_ in block.out])
        left = reading(block.on, by)
    wrt = tuple([substitute(map_, by) for map_ in local_wrt])
    right = reading(on_local, by)
    kept = labels_of(out)
    kept.update(labels_of(wrt))
    gone = {label: None for label in labels_of(mid) if label not in kept}
    for label in left.on + right.on:
        if label not in kept:
            gone[label] = None
    if any(label.size == 0 for label in kept) or any(label.size == 0 for label in gone):
        return None
    # A label of no value is summed by multiplying with its size.
    times = prod(label.size for label in gone if label not in left.on and label not in right.on)
    affine = not any(type(map_) is Gather for map_ in by.values())
    # The right one's own labels last: so the Jacobian of a layer's weight, of what is above the layer and its input,
    # lies as the weight does.
    order = sorted(kept, key=lambda label: label in right.on and label not in left.on)
    return Law(
        out,
        wrt,
        left,
        right,
        joint(left.on, right.on, gone, order),
        times,
        frozenset(gone),
        affine,
        by,
        renamed,
    )


def _scaling(block: Block, local: Block) -> Law:
    """Return the law of a diagonal local Jacobian, all of whose labels are bare: no map changes."""
    by: Substitution = {
        map_[1][0][0]: at  # type: ignore[index]  # no table
        for map_, at in zip(local.out, block.wrt, strict=True)
    }
    left, right = Reading((), block.on), reading(local.on, by)
    how = joint(left.on, right.on, (), labels(block))
    return Law(block.out, block.wrt, left, right, how, 1, frozenset(), True, by, {})


def _apart(block: Block, local: Block) -> Substitution:
    """New labels for the local Jacobian's where the block has some of them too: laws share labels."""
    taken = labels_of(block.out + block.wrt)
    return {label: bare(Label(label.size)) for label in labels_of(local.out + local.wrt) if label in taken}


def _renamed(local: Block, by: Substitution) -> tuple[tuple[Map, ...], tuple[Map, ...], tuple[Label, ...]]:
    """Return the local Jacobian's maps and labels."""
    if not by:
        return local.out, local.wrt, local.on
    out, wrt = (tuple([substitute(map_, by) for map_ in maps]) for maps in (local.out, local.wrt))
    return out, wrt, reading(local.on, by).on


def _bind(wrt: tuple[Map, ...], local_out: tuple[Map, ...], shape: Sequence[int]) -> Substitution | None:
    """Return the substitution where every dim of the local output is a bare label of its own (most rules)."""
    by: Substitution = {}
    for map_, at, size in zip(local_out, wrt, shape, strict=True):
        label = bare_label(map_)
        if label is None or label.size != size or label in by:
            return None
        by[label] = at
    return by
