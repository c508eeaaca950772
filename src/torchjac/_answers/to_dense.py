"""Blocks written as a dense tensor that the caller may keep and write into."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._blocks.block import Block, TensorOptions
from .._blocks.write import dense
from .forms import Form


def written(
    blocks: Sequence[Block | None], out_shape: Sequence[int], wrt_shape: Sequence[int], like: TensorOptions
) -> Tensor:
    """Return the sum of the blocks (None is zero), sharing memory with none of them."""
    terms = [block for block in blocks if block is not None]
    whole = dense(terms, out_shape, wrt_shape, like)
    # A block that covers everything may be its own dense tensor.
    value = terms[0].value if len(terms) == 1 else None
    return whole.clone() if isinstance(value, Tensor) and value.numel() == whole.numel() else whole


def to_dense(form: Form) -> Tensor:
    """Return a form as a dense tensor of shape ``out_shape + in_shape``."""
    return written(*form.ends)
