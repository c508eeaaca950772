"""Which module of a network each node was recorded in, and which nodes only move entries: what `explain` groups by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from .._blocks.maps import labels_of
from .._capture.tape import Node
from .._rules.registry import local_jacobian
from .._torch import sequence_number


class ModuleSpans:
    """Watches the modules that are called inside; autograd numbers its nodes in turn, so a module has a span of them.

    A module is named as in ``named_modules`` of the outermost one called, which has the name of its class; inside
    another function than ``root`` the class stands before the names of its parts too.
    """

    def __init__(self, root: Callable[..., Any]) -> None:
        self._root = root
        self._names: dict[Module, str] = {}
        self._open: list[tuple[int, str]] = []
        self._spans: list[tuple[int, int, str]] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> ModuleSpans:
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def details(self, node: Node) -> tuple[str, bool]:
        """Return the name of the innermost module of a node, empty outside all, and whether it only moves entries."""
        number = sequence_number(node.fn)
        # Of modules around one another the inner one was left first.
        module = next((name for begin, end, name in self._spans if begin <= number < end), "")
        return module, _only_moves(node)

    def _enter(self, module: Module, args: Any) -> None:
        if not self._open:
            outermost = type(module).__name__
            prefix = "" if module is self._root else f"{outermost}."
            for name, part in module.named_modules():
                self._names.setdefault(part, f"{prefix}{name}" if name else outermost)
        self._open.append((sequence_number(), self._names.get(module, type(module).__name__)))

    def _leave(self, module: Module, args: Any, output: Any) -> None:
        begin, name = self._open.pop()
        self._spans.append((begin, sequence_number(), name))


def _only_moves(node: Node) -> bool:
    """Return whether each entry of the output is one of the input's, as of a view, a transpose or a gather."""
    if node.note != "explicit" or node.calls:
        return False
    known = local_jacobian(node)
    if known.batch_dims or len(known.locals) != 1:
        return False
    value, _, out, wrt = known.locals[0].block
    return isinstance(value, float) and value == 1.0 and labels_of(wrt).keys() <= labels_of(out).keys()
