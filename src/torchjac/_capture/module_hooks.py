"""Hooks of all modules, for a while and for one thread: PyTorch keeps them for the process.

One that were left behind would be called by every module from then on, in every thread.
"""

from __future__ import annotations

import threading
from typing import Any

from torch.nn import Module
from torch.nn.modules import module as _module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .state import Change

#: Where PyTorch keeps them, by the numbers of their handles
_KEPT = [kept for name, kept in vars(_module).items() if name.startswith("_global_forward_")]


class ModuleHooks(Change):
    """Look at each module that this thread calls, before and after."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def before(self, module: Module) -> None:
        """Look at a module that is called."""

    def after(self, module: Module) -> None:
        """Look at a module that returned or raised."""

    def make(self) -> Any:
        """Register both."""
        register_module_forward_pre_hook(self._before)
        register_module_forward_hook(self._after, always_call=True)
        return self

    def undo(self) -> None:
        """Remove them, also where an interrupt came before there was a handle."""
        own = self._before, self._after
        numbers = {number for kept in _KEPT for number, hook in list(kept.items()) if hook in own}
        for kept in reversed(_KEPT):  # what tells of hooks goes before the hooks, by which they are found
            for number in numbers:
                kept.pop(number, None)

    def _before(self, module: Module, _: Any) -> None:
        if threading.get_ident() == self._thread:
            self.before(module)

    def _after(self, module: Module, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self.after(module)
