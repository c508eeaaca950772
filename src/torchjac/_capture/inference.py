"""Tensors made in inference mode: autograd cannot save them, so a function that captures some gets copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._torch import pytree

T = TypeVar("T")

#: What PyTorch says (torch 2.9-2.13) when an op of the graph needs such a tensor.
REFUSAL = "Inference tensors cannot be saved for backward"


class _Copies(TorchFunctionMode):
    """Hand each op a normal copy of every inference tensor it is given, one copy for each."""

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not _writes(
            getattr(func, "__name__", "")
        ):  # a write must reach the tensor itself, or be refused as PyTorch refuses it
            args, kwargs = pytree.tree_map_only(Tensor, self.normal, (args, kwargs))
        return func(*args, **(kwargs or {}))

    def normal(self, tensor: Tensor) -> Tensor:
        """Return the tensor, or its copy if it was made in inference mode."""
        if not tensor.is_inference() or torch.is_inference_mode_enabled():
            return tensor
        if id(tensor) not in self.copies:
            self.copies[id(tensor)] = tensor, tensor.clone()
        return self.copies[id(tensor)][1]


def _writes(name: str) -> bool:
    """Return whether an op of this name writes into its tensor: mul_, __setitem__, __imul__."""
    if name.endswith("__"):
        return name == "__setitem__" or name.startswith("__i")
    return name.endswith("_")


def run_normally(run: Callable[[], T], inputs: Sequence[Tensor], outside: bool) -> T:
    """Call a function whose graph is recorded, whatever tensors it captures.

    Watching every op costs time, so it is done from the start only where inference tensors are likely:
    around a call in inference mode (``outside``) or on inputs made there. Anywhere else the function is
    called again if autograd refuses.
    """
    if not outside and not any(map(Tensor.is_inference, inputs)):
        try:
            return run()
        except RuntimeError as error:
            if REFUSAL not in str(error):
                raise
    with _Copies():
        return run()
