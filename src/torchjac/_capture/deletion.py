"""Freeing graphs of any depth without recursion.

PyTorch frees a chain of nodes one after another, but not where they have Python wrappers: a node's wrapper lives as
long as the node, and is dropped from inside the deletion of the node above (torch 2.13), so that 15,000 nodes overflow
a stack of 8 MB. Reading a graph gives every node of it a wrapper. So some nodes on every long path become *anchors*:
each holds the wrappers of the nodes below it in an object that outlives the deletion of the anchor itself, and hands
them to a queue of the thread. It holds for any thread that drops the graph, at any time, in any order.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

#: The most wrapped nodes that follow each other before an anchor; one takes some 600 bytes of the stack.
MOST_NESTED = 64

_KEY = "torchjac_below"


class _Queue(list[Any]):
    """The queue of what the thread is about to drop; it exists only while that goes on."""

    __slots__ = ("__weakref__",)


class _Deleting(threading.local):
    queue: Callable[[], _Queue | None] = staticmethod(lambda: None)


_here = _Deleting()


class _Below(list[Any]):
    """The edges to the nodes below an anchor, with their wrappers; dropped after it."""

    # Defaults, as the names of a module may be gone at the exit of the interpreter.
    def __del__(self, thread: Any = _here, queue_type: Any = _Queue, ref: Any = weakref.ref) -> None:
        queue = thread.queue()
        if queue is not None:
            queue += self
            return
        queue = queue_type(self)
        self.clear()
        thread.queue = ref(queue)  # an interrupt that ends this frame ends the queue as well
        while queue:
            queue.pop()


def anchor(fn: Any, below: Any = None) -> None:
    """Make a node an anchor, of the ``next_functions`` given if they were read."""
    fn.metadata[_KEY] = _Below(fn.next_functions if below is None else below)


def is_anchor(fn: Any) -> bool:
    """Tell whether a node is an anchor."""
    return _KEY in fn.metadata


def anchor_some(read: Iterable[tuple[Any, Any]]) -> None:
    """Make anchors of some nodes on every long path.

    Nodes come with their ``next_functions``, each after those below it.
    """
    nested: dict[Any, int] = {}
    for fn, below in read:
        deepest = 0
        for node, _ in below:
            deepest = max(deepest, nested.get(node, 0))
        if deepest >= MOST_NESTED:
            anchor(fn, below)
            deepest = 0
        nested[fn] = deepest + 1


class Unlinked(list[Any]):
    """The nodes of a long tape: when it goes, so does each of them by itself, for none leads to another any more."""

    def __del__(self) -> None:
        for node in self:
            node.inputs = ()
