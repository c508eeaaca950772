"""Which module of a network each node was recorded in, and which nodes only move entries: what `explain` groups by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import Module

from .._blocks.maps import labels_of
from .._capture.module_hooks import ModuleHooks
from .._capture.tape import Node
from .._rules.registry import local_jacobian
from .._torch import sequence_number


class ModuleSpans(ModuleHooks):
    """Watches the modules that are called inside; autograd numbers its nodes in turn, so a module has a span of them.

    A module is named as in ``named_modules`` of the outermost one called, which has the name of its class; inside
    another function than ``root`` the class stands before the names of its parts too.
    """

    def __init__(self, root: Callable[..., Any]) -> None:
        super().__init__()
        self._root = root
        self._names: dict[Module, str] = {}
        self._open: list[tuple[Module, int, str]] = []
        self._spans: list[tuple[int, int, str]] = []

    def details(self, node: Node) -> tuple[str, bool]:
        """Return the name of the innermost module of a node, empty outside all, and whether it only moves entries."""
        number = sequence_number(node.fn)
        # Of modules around one another the inner one was left first.
        module = next((name for begin, end, name in self._spans if begin <= number < end), "")
        return module, _only_moves(node)

    def before(self, module: Module) -> None:
        """Note where it begins."""
        if not self._open:
            outermost = type(module).__name__
            prefix = "" if module is self._root else f"{outermost}."
            for name, part in module.named_modules():
                self._names.setdefault(part, f"{prefix}{name}" if name else outermost)
        self._open.append((module, sequence_number(), self._names.get(module, type(module).__name__)))

    def after(self, module: Module) -> None:
        """Note where it ends, unless another hook raised before it began."""
        if self._open and self._open[-1][0] is module:
            _, begin, name = self._open.pop()
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
