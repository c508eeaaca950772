"""A sample inside vmap knows nothing of the graph beneath it: meanwhile it is asked of the physical tensor.

Functions decide by ``requires_grad`` (attention takes kernels without a derivative where it is false, a module's
backward hook is left out), so it must be told as it is.
"""

from __future__ import annotations

from threading import RLock
from typing import Any

from torch import Tensor

from .._torch import TensorBase, is_batched_tensor, unwrapped
from .state import Change

_lock = RLock()
_asking: set[int] = set()
_own: Any = TensorBase


def _beneath(tensor: Tensor) -> Tensor:
    while is_batched_tensor(tensor):
        tensor = unwrapped(tensor)
    return tensor


def _requires_grad(tensor: Tensor) -> bool:
    return bool(_own.requires_grad.__get__(_beneath(tensor)))


def _is_leaf(tensor: Tensor) -> bool:
    return bool(_own.is_leaf.__get__(_beneath(tensor)))


def _grad_fn(tensor: Tensor) -> Any:
    beneath = _beneath(tensor)
    node = _own.grad_fn.__get__(beneath)
    if beneath is not tensor and node is not None:
        raise RuntimeError("the graph of a tensor inside vmap is that of the whole batch")
    return node


_ASKED = {
    "requires_grad": property(_requires_grad, _own.requires_grad.__set__),
    "is_leaf": property(_is_leaf),
    "grad_fn": property(_grad_fn),
}


#: What stood in the place of the properties before
_before: dict[str, Any] = {}


class samples_tell(Change):  # a context manager, and used as one
    """Let samples tell what the tensors beneath them would."""

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
