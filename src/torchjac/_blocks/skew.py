"""Sums along anti-diagonals: what two taps reach together stands where the sum of their positions is.

A window of T taps, each of which sees a window of S taps, sees one of T + S − 1: tap t of the first and tap s of the
second are tap t + s of the two. Along rows of one more number than they need, a table laid out end to end and cut into
rows of the right length stands skewed, each row one further: two views and a copy, however many taps there are.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .maps import Label


class Meeting(NamedTuple):
    """Two taps that reach one position: ``first`` in steps of ``step``, ``second`` in steps of ``other``.

    ``both`` is their sum's label; the three run over ``step · first + other · second``.
    """

    first: Label
    second: Label
    step: int
    other: int
    both: Label


def skewed(value: Tensor, step: int = 1, other: int = 1) -> Tensor:
    """Return the last two dims t, s as t, u: the number of t, s at ``u = step · t + other · s``, zeros around.

    Example:
        >>> skewed(torch.tensor([[1, 2], [3, 4]])).tolist()
        [[1, 2, 0], [0, 3, 4]]
    """
    rows = value.shape[-2]
    value = _apart(value, other)
    columns = value.shape[-1]
    width = step * (rows - 1) + columns
    laid_out = pad(value, (0, width + step - columns)).flatten(-2)
    cut = laid_out[..., : rows * width]
    return cut.view(*cut.shape[:-1], rows, width)


def _apart(value: Tensor, step: int) -> Tensor:
    """Return the last dim with its numbers a step from each other, zeros between."""
    if step == 1:
        return value
    size = step * (value.shape[-1] - 1) + 1
    return pad(value.unsqueeze(-1), (0, step - 1)).flatten(-2)[..., :size]


def meet(value: Tensor, on: tuple[Label, ...], meetings: tuple[Meeting, ...]) -> Tensor:
    """Return a value over taps apart as one over the taps of both, which come last; what meets is added."""
    over = list(on)
    for first, second, step, other, both in meetings:
        if first.size < second.size:
            first, second, step, other = second, first, other, step
        value = value.movedim((over.index(second), over.index(first)), (0, -1))
        terms = []
        for tap in range(second.size):
            term = _apart(value[tap], step)
            terms.append(pad(term, (other * tap, both.size - other * tap - term.shape[-1])))
        value = reduce(torch.add, terms)
        over = [*[label for label in over if label is not first and label is not second], both]
    return value


def met(on: tuple[Label, ...], meetings: tuple[Meeting, ...]) -> tuple[Label, ...]:
    """Return the labels that `meet` gives."""
    gone = {label for each in meetings for label in (each.first, each.second)}
    return (*[label for label in on if label not in gone], *[each.both for each in meetings])


def spread(value: Tensor, on: tuple[Label, ...], meetings: tuple[Meeting, ...]) -> Tensor:
    """Return a value over the second taps as one over the first taps and those of both: a matrix for each meeting.

    Its product with a value over the first taps is what `meet` gives of the product of the two.
    """
    over = list(on)
    for each in meetings:
        rows = value.movedim(over.index(each.second), -1).unsqueeze(-2)
        rows = rows.expand(*rows.shape[:-2], each.first.size, -1)
        value = skewed(rows, each.step, each.other)
        over.remove(each.second)
        over += [each.first, each.both]
    return value


def spread_over(on: tuple[Label, ...], meetings: tuple[Meeting, ...]) -> tuple[Label, ...]:
    """Return the labels that `spread` gives."""
    gone = {each.second for each in meetings}
    ends = [label for each in meetings for label in (each.first, each.both)]
    return (*[label for label in on if label not in gone], *ends)
