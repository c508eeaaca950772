"""Index maps: where along one dim of a tensor the entries of a block stand.

A `Label` is an index that runs over ``range(size)``, as a letter does in an einsum. A map gives, for
each value of its labels, a position along one dim: `Affine` by a formula, `Gather` by a table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeVar, final

import torch
from torch import Tensor


class Label:
    """An index running over ``range(size)``; two labels are the same only if they are one object."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"{id(self) % 10007}:{self.size}"


@final
class Affine(NamedTuple):
    """The position ``offset + Σ stride · label``; no term is repeated and no stride is zero."""

    offset: int
    terms: tuple[tuple[Label, int], ...]

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels the position depends on."""
        return tuple(label for label, _ in self.terms)


@final
class Gather(NamedTuple):
    """The position ``index[labels]``: an int64 tensor with one dim per label."""

    index: Tensor  # type: ignore[assignment]  # a tuple's method of that name is not used
    labels: tuple[Label, ...]


Map: TypeAlias = Affine | Gather
Substitution: TypeAlias = dict[Label, Map]
#: What is read: a tensor, or what may be a number, which has no labels
Value = TypeVar("Value", Tensor, Tensor | float)


class InternedMaps(tuple[Map, ...]):
    """Affine maps of all dims that are remembered: the same law is the same object, and is told by its identity."""

    __slots__ = ()
    __hash__ = object.__hash__


def bare(label: Label) -> Affine:
    """Return the map that is the label itself."""
    return Affine(0, ((label, 1),))


def constant(position: int) -> Affine:
    """Return the map that stays at one position."""
    return Affine(position, ())


def bare_label(map_: Map) -> Label | None:
    """Return the label a map is equal to, or None if it is anything more than one label."""
    if type(map_) is Affine and map_[0] == 0:
        terms = map_[1]
        if len(terms) == 1 and terms[0][1] == 1:
            return terms[0][0]
    return None


def labels_of(maps: tuple[Map, ...]) -> dict[Label, None]:
    """Return the labels of some maps, in order of first appearance (an ordered set)."""
    labels: dict[Label, None] = {}
    for map_ in maps:
        if type(map_) is Affine:
            for label, _ in map_[1]:
                labels[label] = None
        else:
            for label in map_[1]:
                labels[label] = None
    return labels


def substitute(map_: Map, by: Substitution) -> Map:
    """Return the map with some of its labels replaced by maps: affine in affine stays affine."""
    if type(map_) is Gather:
        if not any(label in by for label in map_.labels):
            return map_
        return Gather(*take(map_.index, map_.labels, by))
    terms = map_[1]
    if len(terms) == 1:  # the common cases, without arithmetic
        label, stride = terms[0]
        if label not in by:
            return map_
        only = by[label]
        if stride == 1 and map_[0] == 0:
            return only
        if type(only) is Affine:
            return Affine(
                map_[0] + stride * only[0], tuple([(other, stride * step) for other, step in only[1]])
            )
    elif not terms:
        return map_
    offset = map_[0]
    strides: dict[Label, int] = {}
    gathers: list[tuple[Gather, int]] = []
    for label, stride in terms:
        inner = by.get(label)
        if inner is None:
            strides[label] = strides.get(label, 0) + stride
        elif type(inner) is Affine:
            offset += stride * inner[0]
            for inner_label, inner_stride in inner[1]:
                strides[inner_label] = strides.get(inner_label, 0) + stride * inner_stride
        else:
            gathers.append((inner, stride))
    affine = Affine(offset, tuple((label, stride) for label, stride in strides.items() if stride))
    if not gathers:
        return affine
    over = tuple(labels_of((affine, *(gather for gather, _ in gathers))))
    device = gathers[0][0].index.device
    index = positions(affine, over, device)
    for gather, stride in gathers:
        index = index + stride * positions(gather, over, device)
    return Gather(index.expand([label.size for label in over]), over)


def positions(map_: Map, over: tuple[Label, ...], device: torch.device) -> Tensor:
    """Return the positions of a map as an int64 tensor that broadcasts over the labels ``over``."""
    if type(map_) is Gather:
        return align(map_.index, map_.labels, over)
    index = torch.full((1,) * len(over), map_[0], dtype=torch.int64, device=device)
    for label, stride in map_[1]:
        shape = [1] * len(over)
        shape[over.index(label)] = label.size
        index = index + (torch.arange(label.size, device=device) * stride).view(shape)
    return index


def align(value: Tensor, on: tuple[Label, ...], over: tuple[Label, ...]) -> Tensor:
    """Return a tensor over the labels ``on`` as one that broadcasts over ``over`` (a superset)."""
    if on == over:
        return value
    order = sorted(range(len(on)), key=lambda dim: over.index(on[dim]))
    if order != list(range(len(on))):
        value = value.permute(order)
    if len(on) == len(over):
        return value
    present = set(on)
    return value.reshape([label.size if label in present else 1 for label in over])


class Reading(NamedTuple):
    """A plan to read a tensor over labels where maps replace them: the calls to make, and the labels it then has."""

    steps: tuple[tuple[Callable[..., Tensor], tuple[Any, ...]], ...]
    on: tuple[Label, ...]


def take(value: Value, on: tuple[Label, ...], by: Substitution) -> tuple[Value, tuple[Label, ...]]:
    """Read a tensor over labels at the maps that replace some of them."""
    found = reading(on, by)
    return read(found, value), found.on


def read(how: Reading, value: Value) -> Value:
    """Return a tensor read as worked out before."""
    for call, args in how.steps:
        value = call(value, *args)
    return value


def reading(on: tuple[Label, ...], by: Substitution) -> Reading:
    """Work out how a tensor over labels is read at the maps that replace some of them.

    Renaming costs nothing, an affine map of one label is a slice and stays a view, and so do windows, a map of two, and
    a range that several count through; anything else reads the entries through an index tensor.
    """
    labels: list[Label] = []
    inside: list[Label] = []
    steps: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = []
    tables: dict[int, Map] = {}
    for label in on:
        map_ = by.get(label)
        if map_ is None:
            labels.append(label)
            continue
        renamed = bare_label(map_)
        if renamed is not None and renamed.size == label.size:
            labels.append(renamed)
            continue
        dim = len(labels)
        if type(map_) is Affine and not map_.terms:
            steps.append((Tensor.select, (dim, map_.offset)))
        elif type(map_) is Affine and len(map_.terms) == 1:
            ((inner, stride),) = map_.terms
            start = map_.offset
            if stride < 0:
                steps.append((Tensor.flip, (dim,)))
                start, stride = label.size - 1 - start, -stride
            if stride == 1:
                steps.append((Tensor.narrow, (dim, start, inner.size)))
            else:
                steps.append((_every, (dim, start, stride, inner.size)))
            labels.append(inner)
        elif type(map_) is Affine and (window := _window(map_)) is not None:
            at, step, place = window
            steps.append((_windows, (dim, map_.offset, at.size, step, place.size)))
            labels.append(at)
            inside.append(place)
        elif type(map_) is Affine and (digits := digits_of(map_)):
            sizes = tuple([digit.size for digit in digits])
            if prod(sizes) != label.size:
                steps.append((Tensor.narrow, (dim, map_.offset, prod(sizes))))
            steps.append((Tensor.unflatten, (dim, sizes)))
            labels += digits
        else:
            tables[dim] = map_
            labels.append(label)
    labels += inside
    if tables:
        step, after = _tables(tuple(labels), tables)
        return Reading((*steps, step), after)
    while len(set(labels)) < len(labels):  # a label that stands twice reads the diagonal
        second = next(dim for dim, label in enumerate(labels) if label in labels[:dim])
        first = labels.index(labels[second])
        steps.append((Tensor.diagonal, (0, first, second)))
        labels = [other for dim, other in enumerate(labels) if dim not in (first, second)] + [labels[second]]
    return Reading(tuple(steps), tuple(labels))


def _every(value: Tensor, dim: int, start: int, step: int, count: int) -> Tensor:
    window = [slice(None)] * dim
    return value[(*window, slice(start, start + step * (count - 1) + 1 if count else start, step))]


def _window(map_: Affine) -> tuple[Label, int, Label] | None:
    """Return the windows' label, their step and the label inside, of a map ``offset + step · at + place``."""
    if len(map_.terms) != 2:
        return None
    (at, step), (place, one) = sorted(map_.terms, key=lambda term: -term[1])
    return (at, step, place) if one == 1 and at.size and place.size else None


def digits_of(map_: Affine) -> list[Label]:
    """Return the labels of a map that counts through a range without a gap, the slowest first; none of another one."""
    digits: list[Label] = []
    count = 1
    terms = map_.terms
    for label, stride in sorted(terms, key=lambda term: term[1]) if len(terms) > 1 else terms:
        if stride != count:
            return []
        digits.insert(0, label)
        count *= label.size
    return digits


def _windows(value: Tensor, dim: int, start: int, count: int, step: int, size: int) -> Tensor:
    """Return the view of windows along a dim: how many there are stays there, what is inside comes last."""
    return value.narrow(dim, start, step * (count - 1) + size).unfold(dim, size, step)


def _tables(labels: tuple[Label, ...], tables: dict[int, Map]) -> tuple[Any, tuple[Label, ...]]:
    """Return the step that reads dims through index tensors, all at once: new labels come first, others ride along."""
    inner = labels_of(tuple(tables.values()))
    ride = [dim for dim in range(len(labels)) if dim not in tables]
    joined = [dim for dim in ride if labels[dim] in inner or labels.count(labels[dim]) > 1]
    for dim in joined:
        inner.setdefault(labels[dim])
    over = tuple(inner)
    maps = [*tables.values(), *(bare(labels[dim]) for dim in joined)]
    free = [dim for dim in ride if dim not in joined]
    order = [*tables, *joined, *free]
    after = over + tuple(labels[dim] for dim in free)
    return (_read_tables, (order, maps, over, [label.size for label in after])), after


def _read_tables(
    value: Tensor, order: list[int], maps: list[Map], over: tuple[Label, ...], sizes: list[int]
) -> Tensor:
    index = [positions(map_, over, value.device) for map_ in maps]
    # Not value[index]: there PyTorch 2.9 reads an index without dims as a number, which vmap cannot.
    found: Tensor = torch.ops.aten.index.Tensor(value.permute(order), index).expand(sizes)
    return found
