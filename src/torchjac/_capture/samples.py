"""A sample inside vmap knows nothing of the graph beneath it: a function that is captured there asks the whole batch.

Functions decide by ``requires_grad`` (attention takes kernels without a derivative where it is false, a module's
backward hook is left out), so it must be told as it is. Meanwhile three properties of `Tensor` are replaced; in a
thread that entered no levels they say what they always do.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from torch import Tensor

from .._torch import TensorBase, is_batched_tensor, unwrapped
from .state import Change
from .vmap_levels import levels_now

_lock = RLock()


def _beneath(tensor: Tensor) -> Tensor:
    while is_batched_tensor(tensor):
        tensor = unwrapped(tensor)
    return tensor


def _asked(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda tensor: read(tensor if levels_now() is None else _beneath(tensor))


def _node(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def grad_fn(tensor: Tensor) -> Any:
        node = read(tensor)
        if node is None and levels_now() is not None and read(_beneath(tensor)) is not None:
            raise RuntimeError("the graph of a tensor inside vmap is that of the whole batch")
        return node

    return grad_fn


def _property(name: str, ask: Callable[[Callable[[Tensor], Any]], Callable[[Tensor], Any]]) -> property:
    own: Any = getattr(TensorBase, name)
    return property(ask(own.__get__), own.__set__, None, own.__doc__)


_ASKED = {
    name: _property(name, ask)
    for name, ask in (("requires_grad", _asked), ("is_leaf", _asked), ("grad_fn", _node))
}

#: Who asks meanwhile
_asking: set[int] = set()

#: The properties that stood in the place of these, None where the class had none of its own
_before: dict[str, Any] = {}


class samples_tell(Change):  # a context manager, and used as one
    """Let samples tell what the tensors beneath them would, inside levels that were entered."""

    def make(self) -> None:
        """Replace the properties, unless they are."""
        with _lock:
            _asking.add(id(self))
            for name, asked in _ASKED.items():
                if vars(Tensor).get(name) is not asked:
                    _before[name] = vars(Tensor).get(name)
                    setattr(Tensor, name, asked)

    def undo(self) -> None:
        """Put back what stood there, once nobody asks; what others have put there meanwhile stays."""
        with _lock:
            _asking.discard(id(self))
            for name, asked in _ASKED.items():
                if not _asking and vars(Tensor).get(name) is asked:
                    if _before[name] is None:
                        delattr(Tensor, name)
                    else:
                        setattr(Tensor, name, _before[name])
        while _lock._is_owned():  # type: ignore[attr-defined]  # an interrupt came on the way out of the lock
            _lock.release()
