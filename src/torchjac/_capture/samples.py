"""A sample inside vmap knows nothing of the graph beneath it: meanwhile it is asked of the physical tensor.

Functions decide by ``requires_grad`` (attention takes kernels without a derivative where it is false, a module's
backward hook is left out), so it must be told as it is.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

_lock = Lock()
_asked = 0
_own: Any = torch._C.TensorBase


def _beneath(tensor: Tensor) -> Tensor:
    while torch._C._functorch.is_batchedtensor(tensor):  # private; see vmap_levels
        tensor = torch._C._functorch.get_unwrapped(tensor)
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


class samples_tell:  # a context manager, and used as one
    """Let samples tell what the tensors beneath them would."""

    def __enter__(self) -> None:
        global _asked
        with _lock:
            _asked += 1
            if _asked == 1:
                for name, asked in _ASKED.items():
                    setattr(Tensor, name, asked)

    def __exit__(self, *_: object) -> None:
        global _asked
        with _lock:
            _asked -= 1
            if _asked == 0:
                for name in _ASKED:
                    delattr(Tensor, name)
