"""Modules sharded by FSDP are refused: their exchanges would meet ours, their parameters replace those given."""

from __future__ import annotations

import sys

from torch import nn

from .._capture.module_hooks import ModuleHooks


class fsdp_refused(ModuleHooks):
    """A call of a module of FSDP raises, in this thread.

    It gathers its own parameters whatever `functional_call` put in their place, so that derivatives by these would be
    zero; and its backward pass exchanges, as often as there are rows, which differs from rank to rank.
    """

    def before(self, module: nn.Module) -> None:
        """Look at each module before it is called."""
        fsdp = sys.modules.get("torch.distributed.fsdp")
        kinds = tuple(getattr(fsdp, name, ()) for name in ("FSDPModule", "FullyShardedDataParallel"))
        if isinstance(module, kinds):
            raise NotImplementedError(
                f"jacobian: func calls {type(module).__name__}, a module sharded by FSDP, which gathers its parameters "
                "itself; call the same module before it was sharded, as functional_call(module, parameters, x), with "
                "dict(sharded.named_parameters()) as an argument"
            )
