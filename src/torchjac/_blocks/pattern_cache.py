"""The patterns of the Jacobians that were met last, found again by their laws: a loop pays for its pattern once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch

from .._torch import disable_current_modes
from .block import Block
from .maps import Gather
from .pattern import Pattern, law
from .tracing import inside_functorch, is_tracing

#: The most bytes of index tensors in all patterns that are kept, and the most patterns.
MOST_BYTES = 1 << 28
MOST_PATTERNS = 256


class _Patterns:
    """The patterns of the Jacobians that were met last, by their laws."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], list[Pattern]] = OrderedDict()
        self._lock = Lock()

    def find(
        self, blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
    ) -> Pattern:
        key, tables = law(blocks, out_shape, in_shape, device)
        with self._lock:
            for pattern in self._kept.get(key, ()):
                if pattern.is_of(key, tables):
                    self._kept.move_to_end(key)
                    return pattern
        pattern = Pattern(blocks, out_shape, in_shape, device)
        with self._lock:
            self._kept.setdefault(key, []).append(pattern)
            self._kept.move_to_end(key)
            self._forget()
        return pattern

    def _forget(self) -> None:
        while len(self._kept) > 1 and (
            len(self._kept) > MOST_PATTERNS
            or sum(pattern.nbytes for kept in self._kept.values() for pattern in kept) > MOST_BYTES
        ):
            self._kept.popitem(last=False)


_patterns = _Patterns()


def pattern_of(
    blocks: Sequence[Block], out_shape: Sequence[int], in_shape: Sequence[int], device: torch.device
) -> Pattern | None:
    """Return the pattern of a sum of blocks; None where only values tell it that are not known, or not yet.

    That is with index tables in a trace or inside a functorch transform. A pattern made inside a transform is not
    kept: its tensors belong to it.
    """
    if inside_functorch() or is_tracing() or device.type == "meta":
        if any(type(map_) is Gather for block in blocks for map_ in block.out + block.wrt):
            return None
        if inside_functorch():
            return Pattern(blocks, out_shape, in_shape, device)
    with disable_current_modes():
        return _patterns.find(blocks, out_shape, in_shape, device)
