"""Checkpointed blocks: a walk runs each again once, for all that it reads of it.

Outside its engine PyTorch runs a block again for every saved tensor that is unpacked, and forgets the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils import checkpoint

from .._torch import graph_exec_group, graph_task_id
from .state import setting
from .vmap_levels import levels_entered, levels_now

#: The blocks that stay unpacked at once: nested ones need each other, and a walk passes from one to the next.
MOST_KEPT = 4

#: Blocks that the walk of this thread has run again, the latest last: block → holder → tensor
_kept: ContextVar[dict[Any, dict[Any, torch.Tensor]] | None] = ContextVar(
    "torchjac_blocks_kept", default=None
)

# Private: what packs and unpacks the saved tensors of one run of a block, derived from once, when torchjac is imported,
# whatever stands there. PyTorch runs a block once for all that is unpacked inside a GraphExecGroup; a version without
# it runs it once for each tensor, as before.
_Alone: Any = checkpoint._checkpoint_hook
_Group: Any = getattr(checkpoint, "GraphExecGroup", None)

_any_made = False


def any_made() -> bool:
    """Tell whether a block was ever checkpointed in this process."""
    return _any_made


if _Group is not None and isinstance(_Alone, type):

    class Shared(_Alone):  # type: ignore[misc]  # of whatever stands there
        """The hooks of a checkpointed block whose saved tensors are unpacked all at once while a walk reads them."""

        unpack_hook: Callable[[Any], torch.Tensor]

        def __init__(self, block: Any) -> None:
            global _any_made
            _any_made = True
            super().__init__(block)
            alone, levels = self.unpack_hook, levels_now()

            def unpack(holder: Any) -> torch.Tensor:
                with levels_entered(levels):  # the block saw samples
                    return _unpack(block, holder, alone)

            self.unpack_hook = unpack

    checkpoint._checkpoint_hook = Shared  # type: ignore[assignment,misc]


def blocks_kept() -> setting:
    """Keep what the latest blocks saved, for as long as a walk goes on."""
    return setting(_kept, {})


def _unpack(block: Any, holder: Any, alone: Callable[[Any], torch.Tensor]) -> torch.Tensor:
    """Return one saved tensor of a block. PyTorch's engine, which runs it once for each of its tasks, is left alone."""
    kept = _kept.get()
    if kept is None or graph_task_id() != -1:
        return alone(holder)
    found = kept.pop(block, None)
    if found is None:
        found = _all_saved(block, alone)
    kept[block] = found
    if len(kept) > MOST_KEPT:
        del kept[next(iter(kept))]
    return found[holder] if holder in found else alone(holder)


def _all_saved(block: Any, alone: Callable[[Any], torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Return what a block saved, of one new run; nothing where the function in it needs runs of its own."""
    holders = [holder for holder in (ref() for ref in block.weak_holders) if holder is not None]
    # A group may be there: that of the block around this one, or the user's.
    inside = graph_exec_group() is not None
    try:
        with nullcontext() if inside else _Group():
            return {holder: alone(holder) for holder in holders}
    except checkpoint.CheckpointError:
        return {}
