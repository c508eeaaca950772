"""The product of two blocks that share no label: `compose`, with tables of several dims matched at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .block import Block
from .block_views import joined
from .compose import compose
from .maps import Gather, Map, bare_label


def product_of_two(left: Block, right: Block, mid_shape: Sequence[int], device: torch.device) -> Block | None:
    """Return the product of two blocks with no label in common, or None if it is zero.

    Dims where two tables would be matched by their values are matched all at once: matched one by one, the
    first dim of coordinates in a small space would pair nearly everything with everything.
    """
    hard = [
        dim
        for dim, (a, b, size) in enumerate(zip(left.wrt, right.out, mid_shape, strict=True))
        if needs_join(a, b, size)
    ]
    if len(hard) > 1:
        sizes = [mid_shape[dim] for dim in hard]
        easy = [dim for dim in range(len(mid_shape)) if dim not in hard]

        def once(maps: Sequence[Map]) -> tuple[Map, ...]:
            return (*(maps[dim] for dim in easy), joined([maps[dim] for dim in hard], sizes))

        left, right = left._replace(wrt=once(left.wrt)), right._replace(out=once(right.out))
        count = 1
        for size in sizes:
            count *= size
        mid_shape = [*(mid_shape[dim] for dim in easy), count]
    return compose(left, right, mid_shape, device)


def needs_join(a: Map, b: Map, size: int) -> bool:
    """Return whether two maps into a dim of some size can be matched only position by position."""
    if type(a) is not Gather and type(b) is not Gather:
        return False
    return not any(label is not None and label.size == size for label in (bare_label(a), bare_label(b)))
