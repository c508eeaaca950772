"""Counting what a walk does: numbers written by ops, and numbers multiplied in matrix products."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from torchjac._blocks.cost import PRODUCT_RATE
from torchjac._torch import TorchDispatchMode, pytree


class Counter(TorchDispatchMode):
    """Counts the ops below it, in the unit of an estimate: a number written, `PRODUCT_RATE` of one multiplied.

    A view writes nothing. What a large answer leaves to the operating system to zero is not seen.

    >>> import torch
    >>> with Counter() as counter:
    ...     _ = torch.ones(4, 5) @ torch.ones(5, 6).t().t()
    >>> counter.written, counter.multiplied
    (74, 120)
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = self.multiplied = 0

    @property
    def work(self) -> float:
        """Both together."""
        return self.written + PRODUCT_RATE * self.multiplied

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op and count it."""
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.multiplied += flop_registry[packet](*args, **(kwargs or {}), out_val=result) // 2
        returns = func._schema.returns
        aliases = [returned.alias_info for returned in returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.written += sum(
                leaf.numel() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)
            )
        return result
