"""A sample inside vmap knows nothing of the graph beneath it: a function that is captured there asks the whole batch.

Functions decide by ``requires_grad`` (attention takes kernels without a derivative where it is false, a module's
backward hook is left out), so it must be told as it is. Importing torchjac replaces three properties of `Tensor` for
that, once, by what asks whatever stood there. No call changes the class: a write at each would empty Python's caches
of attributes (a tenth of a small call; Python 3.13 gives them up after some 3,000 writes). Where no levels were
entered they say what they always did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._torch import is_batched_tensor, unwrapped
from .vmap_levels import levels_now


def _beneath(tensor: Tensor) -> Tensor:
    while is_batched_tensor(tensor):
        tensor = unwrapped(tensor)
    return tensor


def _asked(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda tensor: read(tensor) if levels_now() is None else read(_beneath(tensor))


def _node(read: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def grad_fn(tensor: Tensor) -> Any:
        node = read(tensor)
        if node is None and levels_now() is not None and read(_beneath(tensor)) is not None:
            raise RuntimeError("the graph of a tensor inside vmap is that of the whole batch")
        return node

    return grad_fn


for _name, _ask in (("requires_grad", _asked), ("is_leaf", _asked), ("grad_fn", _node)):
    _own = getattr(Tensor, _name)
    setattr(Tensor, _name, property(_ask(_own.__get__), _own.__set__, None, _own.__doc__))
