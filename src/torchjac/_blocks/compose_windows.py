"""Composition with all taps at once, in one product; tap by tap where two blocks have no law of windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .block import Block
from .compose import compose, is_without_memory, product
from .dropped_zeros import can_look
from .maps import Label, align, read
from .skew import meet, met
from .tracing import has_finite_sum, leaves_a_trail
from .window_law import Inside, WindowLaw, window_law
from .windowed import plain, windowed


def compose_windowed(
    block: Block,
    local: Block,
    shape: Sequence[int],
    wrt_shape: Sequence[int],
    device: torch.device,
    selects: bool = False,
) -> list[Block]:
    """Return the product of a block and a local Jacobian, of which one has windows, over a tensor of a shape.

    One block with windows, or, where their law has another form, one for each two taps.
    """
    found = window_law(block, local, shape, wrt_shape)
    if found is None:
        pairs = [
            compose(one, other, shape, device, selects) for one in plain([block]) for other in plain([local])
        ]
        return [made for made in pairs if made is not None]
    value, on = _value(found, block, local, selects)
    if isinstance(value, Tensor) and is_without_memory(value, device):
        return []
    return [windowed(Block(value, on, found.law.out, found.law.wrt), found.windows, found.is_clean)]


def _value(
    found: WindowLaw, block: Block, local: Block, selects: bool
) -> tuple[Tensor | float, tuple[Label, ...]]:
    """Return the value of a product, and its labels."""
    left, right = block.value, local.value
    if found.inside is not None:
        left = _inside(found.inside, block)
    if not found.meetings:
        return product(found.law, selects, left, right), found.law.joint.on
    if (
        found.spread is not None
        and not leaves_a_trail([value for value in (left, right) if isinstance(value, Tensor)])
        and can_look(left)
        and has_finite_sum(left)  # type: ignore[arg-type]  # of a tensor: the zeros of a matrix drop nothing
    ):
        return product(found.spread, selects, left, right), found.spread.joint.on
    apart, on = product(found.law, selects, left, right), found.law.joint.on
    return meet(apart, on, found.meetings), met(on, found.meetings)  # type: ignore[arg-type]  # of a tensor


def _inside(how: Inside, block: Block) -> Tensor:
    """Return the value of a block, zero where a tap is outside."""
    value = block.value
    assert isinstance(value, Tensor)  # taps are labels of it
    ones = torch.ones(how.sizes, dtype=torch.bool, device=value.device)
    return torch.where(align(read(how.where, ones), how.where.on, how.on), align(value, block.on, how.on), 0)
