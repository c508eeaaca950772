"""Solve ``left_d(labels) = right_d(labels)`` for all dims at once: where two blocks meet.

The answer is a substitution of labels by maps. A bare label over the whole dim takes the other side as
it is; two arithmetic progressions meet in a third one; anything else is joined through index tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from operator import itemgetter

import torch

from .dense_views import stands_for_one, unravelled
from .maps import Affine, Gather, Label, Map, Substitution, bare, bare_label, constant, positions, substitute
from .tracing import is_known


class CannotJoinError(RuntimeError):
    """The maps can be matched only by their values, and those are not known here (inside vmap, in a trace, on meta)."""


UNKNOWN = (
    "two index maps can be matched only by their positions, not known inside vmap, in a trace or on meta; "
    "take the product outside vmap, or of the dense Jacobian"
)


def unify(
    left: Sequence[Map], right: Sequence[Map], shape: Sequence[int], device: torch.device
) -> Substitution | None:
    """Find the substitution under which all maps of the two sides agree, or None if they never do."""
    solved: Substitution = {}
    for a, b, size in zip(left, right, shape, strict=True):
        if solved:
            a, b = substitute(a, solved), substitute(b, solved)
        if a is b or (type(a) is Affine and type(b) is Affine and a == b):
            continue
        step = _solve(a, b, size, device)
        if step is None:
            return None
        for label, map_ in solved.items():
            solved[label] = substitute(map_, step)
        solved.update(step)
    return solved


def _solve(a: Map, b: Map, size: int, device: torch.device) -> Substitution | None:
    if size == 1:  # every position is 0, whatever a table holds; of no positions there are none
        if any(label.size == 0 for label in a.labels + b.labels):
            return None
        if Gather in (type(a), type(b)):
            return {label: constant(0) for map_ in (a, b) if type(map_) is Affine for label in map_.labels}
    for bound, other in ((b, a), (a, b)):
        label = bare_label(bound)
        if label is not None and label.size == size and label not in other.labels:
            return {label: other}
    if type(a) is Affine and type(b) is Affine:
        if len(a.terms) <= 1 and len(b.terms) <= 1 and (a.labels != b.labels or not a.labels):
            return _meet(a, b)
        fixed, number = (b, a) if a.terms else (a, b)
        if not fixed.terms and stands_for_one(number):
            return _digits(fixed.offset - number.offset, number)
    elif type(a) is not type(b):
        table, progression = (a, b) if type(a) is Gather else (b, a)
        if _is_looked_up(table, progression):
            return _look_up(table, progression)  # type: ignore[arg-type]  # of either kind
    return _match_digits(a, b) or _join(a, b, size, device)


def _is_looked_up(table: Map, progression: Map) -> bool:
    """Return whether each position of a table stands for itself where it falls on a progression."""
    shared = set(progression.labels) & set(table.labels)
    return type(progression) is Affine and len(progression.terms) <= 1 and not shared


def _meet(a: Affine, b: Affine) -> Substitution | None:
    """Return where two arithmetic progressions (or single positions) meet: again a progression."""
    if not a.terms and not b.terms:
        return {} if a.offset == b.offset else None
    if not a.terms or not b.terms:
        fixed, moving = (a, b) if not a.terms else (b, a)
        ((label, stride),) = moving.terms
        at, rest = divmod(fixed.offset - moving.offset, stride)
        return {label: constant(at)} if rest == 0 and 0 <= at < label.size else None
    ((la, sa),) = a.terms
    ((lb, sb),) = b.terms
    common = gcd(sa, sb)
    gap, rest = divmod(b.offset - a.offset, common)
    if rest:
        return None
    # All solutions of sa·i − sb·j = gap·common: i = i0 + t·(sb/common), j = j0 + t·(sa/common).
    step_a, step_b = sb // common, sa // common
    if step_a < 0:
        step_a, step_b = -step_a, -step_b
    i0 = gap * pow(sa // common, -1, step_a) % step_a if step_a > 1 else 0
    j0 = (sa * i0 + a.offset - b.offset) // sb
    low, high = 0, (la.size - 1 - i0) // step_a
    if step_b > 0:
        low, high = max(low, -(j0 // step_b)), min(high, (lb.size - 1 - j0) // step_b)
    else:
        low, high = max(low, -((lb.size - 1 - j0) // -step_b)), min(high, j0 // -step_b)
    if high < low:
        return None
    i0, j0, count = i0 + low * step_a, j0 + low * step_b, high - low + 1
    if count == la.size and step_a == 1 and i0 == 0:
        return {lb: _progression(j0, step_b, la)}
    if count == lb.size and step_b == 1 and j0 == 0:
        return {la: _progression(i0, step_a, lb)}
    label = Label(count)
    return {la: _progression(i0, step_a, label), lb: _progression(j0, step_b, label)}


def _progression(start: int, step: int, label: Label) -> Affine:
    return Affine(start, ((label, step),))


def _look_up(table: Gather, progression: Affine) -> Substitution | None:
    """Return where the positions of a table fall on an arithmetic progression (or on a single position)."""
    found, moving = table.index - progression.offset, progression.terms
    fits = found == 0
    if moving:
        ((label, stride),) = moving
        shift, found = found, found.div(stride, rounding_mode="floor")
        fits = (found * stride == shift) & (found >= 0) & (found < label.size)
    if not is_known(fits):
        raise CannotJoinError(UNKNOWN)
    if bool(fits.all()):
        return {label: Gather(found, table.labels)} if moving else {}
    if not table.labels:
        return None
    matches = fits.nonzero(as_tuple=True)
    tables = dict(zip(table.labels, matches, strict=True))
    if moving:
        tables[label] = found[matches]
    return _tabulate(tables, matches[0].numel())


def _digits(position: int, number: Affine) -> Substitution | None:
    """Return the digits of a position as a mixed-radix number, as the entry of a joined dim has; None if it is none."""
    found: Substitution = {}
    for label, stride in sorted(number.terms, key=itemgetter(1), reverse=True):
        digit, position = divmod(position, stride) if label.size != 1 else (0, position)
        if not 0 <= digit < label.size:
            return None
        found[label] = constant(digit)
    return found if position == 0 else None


def _match_digits(a: Map, b: Map) -> Substitution | None:
    """Return two mixed-radix numbers with the same digits, as a joined dim has on both sides, agree digit by digit."""
    if type(a) is not Affine or type(b) is not Affine or a.offset != b.offset or len(a.terms) != len(b.terms):
        return None
    left, right = (sorted(map_.terms, key=itemgetter(1)) for map_ in (a, b))
    for (la, sa), (lb, sb) in zip(left, right, strict=True):
        if sa != sb or la.size != lb.size or la in b.labels:
            return None
    return {lb: bare(la) for (la, _), (lb, _) in zip(left, right, strict=True)} if stands_for_one(a) else None


def _join(a: Map, b: Map, size: int, device: torch.device) -> Substitution | None:
    """Match positions by their values: the general case, at the cost of one index per match."""
    a_labels, b_labels = a.labels, b.labels
    shared = [label for label in a_labels if label in b_labels]
    at_a, at_b = positions(a, a_labels, device), positions(b, b_labels, device)
    if not (is_known(at_a) and is_known(at_b)):
        raise CannotJoinError(UNKNOWN)
    if shared:
        over = tuple(dict.fromkeys(a_labels + b_labels))
        equal = positions(a, over, device) == positions(b, over, device)
        matches = equal.expand([label.size for label in over]).nonzero(as_tuple=True)
        return _tabulate(dict(zip(over, matches, strict=True)), matches[0].numel())
    at_a, at_b = _flat(at_a, a_labels), _flat(at_b, b_labels)
    # A side that covers each position at most once is a function of the other side's labels.
    for labels, at, other in (
        (b_labels, at_b, Gather(at_a, a_labels)),
        (a_labels, at_a, Gather(at_b, b_labels)),
    ):
        back = torch.full((size,), -1, dtype=torch.int64, device=device)
        back[at] = torch.arange(at.numel(), device=device)
        if not torch.equal(back[at], torch.arange(at.numel(), device=device)):
            continue
        found = back[other.index]
        if bool((found >= 0).all()):
            shape = [label.size for label in other.labels]
            return {
                label: Gather(index.view(shape), other.labels)
                for label, index in zip(labels, _unravel(found, labels), strict=True)
            }
    order = at_b.argsort(stable=True)
    sorted_b = at_b[order]
    first = torch.searchsorted(sorted_b, at_a, side="left")
    count = torch.searchsorted(sorted_b, at_a, side="right") - first
    which_a = torch.repeat_interleave(torch.arange(at_a.numel(), device=device), count)
    begin = torch.repeat_interleave(first - (count.cumsum(0) - count), count)
    which_b = order[begin + torch.arange(which_a.numel(), device=device)]
    tables = dict(zip(a_labels, _unravel(which_a, a_labels), strict=True))
    tables.update(zip(b_labels, _unravel(which_b, b_labels), strict=True))
    return _tabulate(tables, which_a.numel())


def _flat(index: torch.Tensor, labels: tuple[Label, ...]) -> torch.Tensor:
    return index.expand([label.size for label in labels]).reshape(-1).contiguous()


def _unravel(flat: torch.Tensor, labels: tuple[Label, ...]) -> list[torch.Tensor]:
    return unravelled(flat, [label.size for label in labels])


def _tabulate(tables: dict[Label, torch.Tensor], count: int) -> Substitution | None:
    if count == 0:
        return None
    label = Label(count)
    return {old: Gather(index, (label,)) for old, index in tables.items()}
