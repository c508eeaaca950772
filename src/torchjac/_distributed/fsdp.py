"""Modules sharded by FSDP are refused: their exchanges would meet ours, their parameters replace those given."""

from __future__ import annotations

import sys
import threading
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from .._capture.state import Change


class fsdp_refused(Change):
    """A call of a module of FSDP raises, in this thread.

    It gathers its own parameters whatever `functional_call` put in their place, so that derivatives by these would be
    zero; and its backward pass exchanges, as often as there are rows, which differs from rank to rank.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.handles: list[Any] = []

    def make(self) -> None:
        """Look at each module before it is called."""
        self.handles.append(register_module_forward_pre_hook(self._look))

    def undo(self) -> None:
        """Go on as before."""
        while self.handles:
            self.handles[-1].remove()
            self.handles.pop()

    def _look(self, module: nn.Module, _: Any) -> None:
        fsdp = sys.modules.get("torch.distributed.fsdp")
        kinds = tuple(getattr(fsdp, name, ()) for name in ("FSDPModule", "FullyShardedDataParallel"))
        if threading.get_ident() == self.thread and isinstance(module, kinds):
            raise NotImplementedError(
                f"jacobian: func calls {type(module).__name__}, a module sharded by FSDP, which gathers its parameters "
                "itself; call the same module before it was sharded, as functional_call(module, parameters, x), with "
                "dict(sharded.named_parameters()) as an argument"
            )
