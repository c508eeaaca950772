"""Products of two values in which zeros of one drop what they meet, be it infinite or NaN."""

from __future__ import annotations

from math import inf, nan

import torch
from torch import Tensor

from .entrywise import times
from .maps import Label, align
from .multiply import Joint, multiply
from .tracing import has_finite_sum, inside_functorch, is_tracing


def select(
    left: Tensor | float,
    on_left: tuple[Label, ...],
    right: Tensor | float,
    on_right: tuple[Label, ...],
    first: tuple[Label, ...] = (),
    drop: tuple[bool, bool] = (False, True),
) -> tuple[Tensor, tuple[Label, ...]] | None:
    """Return the product, zero wherever a value is whose zeros ``drop`` what they meet; some labels come ``first``.

    None where plain multiplication does the same.
    """
    pairs = ((left, right), (right, left))
    dropping = [
        drops and isinstance(value, Tensor) and (isinstance(other, Tensor) or not -inf < other < inf)
        for (value, other), drops in zip(pairs, drop, strict=True)
    ]
    if not any(dropping):
        return None
    over = tuple(dict.fromkeys(first + on_left + on_right))
    outer = len(over) > max(len(on_left), len(on_right))
    left, right = (
        (align(value, on, over).contiguous() if outer else align(value, on, over))
        if isinstance(value, Tensor)
        else value
        for value, on in ((left, on_left), (right, on_right))
    )
    if inside_functorch() or is_tracing() or _is_recorded(left) or _is_recorded(right):
        # What is finite is met as it is: a zero is a number too, and has a derivative.
        if dropping[0]:
            right = _finite_where(left, right)
        if dropping[1]:
            left = _finite_where(right, left)
        return left * right, over  # type: ignore[return-value]  # one of them drops, so it is a tensor
    zeros = [
        value
        for value, drops in zip((left, right), dropping, strict=True)
        if drops and isinstance(value, Tensor)
    ]
    product: Tensor = times(left, right)  # type: ignore[assignment]  # as above
    # Zero times what is finite is zero already. A sum tells that in a small part of the time of dropping.
    met = [other for (_, other), drops in zip(((left, right), (right, left)), dropping, strict=True) if drops]
    if product.device.type == "cpu" and all(
        isinstance(other, Tensor) and has_finite_sum(other) for other in met
    ):
        return product, over
    for value in zeros:
        product.masked_fill_(value == 0, 0)
    return product, over


def _is_recorded(value: Tensor | float) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()


def _finite_where(drops: Tensor | float, other: Tensor | float) -> Tensor:
    """Return what a value is multiplied by, zero where the value is zero and drops what is infinite or NaN."""
    assert isinstance(drops, Tensor)
    if isinstance(other, Tensor):
        # Of what is infinite or NaN no multiple is zero; `isfinite` makes five calls.
        return torch.where((drops == 0) & (other.detach() * 0 != 0), 0, other)
    return torch.where(drops == 0, 0, other)


def can_look(value: Tensor | float) -> bool:
    """Return whether it may be asked if numbers are finite: they are known, and no GPU is waited for."""
    on_cpu = isinstance(value, Tensor) and value.device.type == "cpu"
    return on_cpu and not (inside_functorch() or is_tracing())


def select_summed(left: Tensor, right: Tensor, how: Joint, drop: tuple[bool, bool]) -> Tensor | float:
    """Return the product summed over labels of both, in which zeros of one value drop what they meet.

    Each number that is not finite is told apart by a product of its own: one for each entry of the sum is too many.
    """
    product = multiply(left, right, how)
    assert isinstance(product, Tensor)
    if not can_look(product) or has_finite_sum(product):
        return product
    given, zeros = (left, right) if drop[1] else (right, left)

    def times(here: Tensor, there: Tensor) -> Tensor:
        a, b = (here, there) if drop[1] else (there, here)
        found = multiply(a.to(product.dtype), b.to(product.dtype), how)
        assert isinstance(found, Tensor)
        return found

    def met(here: Tensor, there: Tensor) -> Tensor:
        return times(here, there) != 0

    above, below = given == inf, given == -inf
    up = met(above, zeros > 0) | met(below, zeros < 0)
    down = met(above, zeros < 0) | met(below, zeros > 0)
    lost = met(given.isnan(), zeros != 0) | (up & down)
    finite = times(given.masked_fill(~given.isfinite(), 0), zeros)
    return finite.masked_fill(up, inf).masked_fill(down, -inf).masked_fill(lost, nan)
