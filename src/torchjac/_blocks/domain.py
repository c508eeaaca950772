"""Domains: where in the ranges of its labels a block is not zero by law, as below the diagonal of a running sum.

A domain is a list of affine forms of the labels, all of which are at least 0 wherever the value is not zero. What two
blocks make of each other keeps the forms of both; a label that ends there is eliminated from them (Fourier 1826):
from i − j ≥ 0 and j − k ≥ 0 follows i − k ≥ 0. Whatever cannot be said by such forms is left out, so that a domain may
hold more than it need, never less. The numbers of a block are kept as they are: a domain tells which are entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import prod

import numpy
import torch

from .._plan.recording import hold, unrecorded
from .block import Block, Zeroed, entries, labels, zeroed
from .maps import Affine, Gather, Label, Map, Substitution, bare, substitute, take
from .tracing import inside_functorch, is_tracing

#: More forms than these are not kept.
MOST_FORMS = 8


def domain_of(block: Block) -> tuple[Affine, ...]:
    """Return the forms of a block's domain."""
    return block.domain if type(block) is Zeroed else ()


def at_most(position: Map, other: Map) -> tuple[Affine, ...]:
    """Return the form that says that one position is at most another."""
    if type(position) is not Affine or type(other) is not Affine:
        return ()
    return (_sum(other, position, 1, -1),)


def _sum(a: Affine, b: Affine, p: int, q: int) -> Affine:
    """Return the form p a + q b."""
    strides = {label: p * stride for label, stride in a.terms}
    for label, stride in b.terms:
        strides[label] = strides.get(label, 0) + q * stride
    terms = tuple([(label, stride) for label, stride in strides.items() if stride])
    return Affine(p * a.offset + q * b.offset, terms)


def least(form: Affine) -> int:
    """Return the least that a form can be over the ranges of its labels."""
    return form.offset + sum([min(stride, 0) * (label.size - 1) for label, stride in form.terms])


def moved(forms: Iterable[Affine], by: Substitution) -> tuple[Affine, ...]:
    """Forms with labels replaced by maps, but for those that would not be affine."""
    found = [substitute(form, by) for form in forms]
    return tuple([form for form in found if type(form) is Affine])


def without(forms: Iterable[Affine], gone: Collection[Label]) -> tuple[Affine, ...]:
    """Return what forms say of all labels but some, whatever the values of those."""
    found = [form for form in forms if least(form) < 0]
    for label in dict.fromkeys([label for form in found for label in form.labels if label in gone]):
        strides = [dict(form.terms).get(label, 0) for form in found]
        kept = [form for form, stride in zip(found, strides, strict=True) if not stride]
        rising = [(form, stride) for form, stride in zip(found, strides, strict=True) if stride > 0]
        falling = [(form, -stride) for form, stride in zip(found, strides, strict=True) if stride < 0]
        rising.append((Affine(label.size - 1, ((label, -1),)), 0))  # its range, taken as far as it goes
        falling.append((bare(label), 0))
        for up, p in rising:
            for down, q in falling:
                if p and q:
                    kept.append(_sum(up, down, q, p))
                elif p:
                    kept.append(_sum(up, Affine(label.size - 1, ((label, -1),)), 1, p))
                elif q:
                    kept.append(_sum(down, bare(label), 1, q))
        found = [form for form in dict.fromkeys(kept) if least(form) < 0]
    return tuple(found) if len(found) <= MOST_FORMS else ()


def hull(blocks: Sequence[Block], whole: Block) -> Block:
    """Return a sum of blocks as one block, with what the domain of any says that holds for all."""
    found: list[Affine] = []
    places = tuple([Label(0) for _ in whole.out + whole.wrt])
    at = dict(zip(places, whole.out + whole.wrt, strict=True))
    for block in blocks:
        for form in domain_of(block):
            candidate = _of_places(form, block, places)
            if candidate is not None and all(_holds(candidate, places, each) for each in blocks):
                found += moved((candidate,), at)
    return zeroed(whole, domain=tuple(dict.fromkeys(found))[:MOST_FORMS])


def _of_places(form: Affine, block: Block, places: Sequence[Label]) -> Affine | None:
    """Return a form of a block's labels as one of its positions along all dims."""
    by: Substitution = {}
    for map_, place in zip(block.out + block.wrt, places, strict=True):
        if type(map_) is Affine and len(map_.terms) == 1 and abs(map_.terms[0][1]) == 1:
            ((label, sign),) = map_.terms
            by.setdefault(label, Affine(-sign * map_.offset, ((place, sign),)))
    return moved((form,), by)[0] if all(label in by for label in form.labels) else None


def _holds(form: Affine, places: Sequence[Label], block: Block) -> bool:
    """Return whether a form of positions is at least 0 at every entry of a block."""
    found = moved((form,), dict(zip(places, block.out + block.wrt, strict=True)))
    return bool(found) and (
        least(found[0]) >= 0 or any(least(_sum(found[0], own, 1, -1)) >= 0 for own in domain_of(block))
    )


def entries_inside(block: Block) -> int:
    """Return how many entries a block names within its domain."""
    forms = domain_of(block)
    if not forms or not entries(block):
        return entries(block)
    bound = dict.fromkeys(label for form in forms for label in form.labels)
    *others, last = sorted(bound, key=lambda label: label.size)
    low, high = numpy.zeros((1,) * len(others), int), numpy.full((1,) * len(others), last.size - 1)
    for form in forms:
        stride = dict(form.terms).get(last, 0)
        rest = _values(
            Affine(form.offset, tuple([term for term in form.terms if term[0] is not last])), others
        )
        if stride > 0:
            low = numpy.maximum(low, -(rest // stride))
        elif stride < 0:
            high = numpy.minimum(high, rest // -stride)
        else:
            high = numpy.where(rest >= 0, high, -1)
    counts = numpy.broadcast_to(numpy.maximum(high - low + 1, 0), [label.size for label in others])
    return int(counts.sum()) * prod([label.size for label in labels(block) if label not in bound])


def _values(form: Affine, over: Sequence[Label]) -> numpy.ndarray:
    value = numpy.full((1,) * len(over), form.offset)
    for label, stride in form.terms:
        shape = [1] * len(over)
        shape[over.index(label)] = label.size
        value = value + (stride * numpy.arange(label.size)).reshape(shape)
    return value


def inside(blocks: Sequence[Block], device: torch.device) -> list[Block]:
    """Blocks with their entries within their domains alone; all of them where a list of those would not be known."""
    if inside_functorch() or is_tracing() or device.type == "meta":
        return list(blocks)
    found = [_inside(block, device) if domain_of(block) else block for block in blocks]
    return [block for block in found if block is not None]


def _inside(block: Block, device: torch.device) -> Block | None:
    """Return the labels that a domain bounds are read off a list; None of a domain without an entry."""
    forms = domain_of(block)
    bound = tuple(dict.fromkeys(label for form in forms for label in form.labels))
    if not bound:
        return Block(*block) if all(form.offset >= 0 for form in forms) else None
    kept = numpy.ones([label.size for label in bound], bool)
    for form in forms:
        kept &= _values(form, bound) >= 0
    found = kept.nonzero()
    entry = Label(len(found[0]))
    with unrecorded():
        tables = tuple([torch.from_numpy(at).to(device) for at in found])
    by: Substitution = {
        label: Gather(table, (entry,)) for label, table in zip(bound, hold(tables), strict=True)
    }
    value, on = take(block.value, block.on, by) if block.on else (block.value, ())
    out, wrt = (tuple([substitute(map_, by) for map_ in maps]) for maps in (block.out, block.wrt))
    return Block(value, on, out, wrt)
