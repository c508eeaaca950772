"""The fingerprint of the call that a store was begun with, so that only the same call goes on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._capture.capture import Captured
from .._capture.graph import Graph


def fingerprint(
    func: Callable[..., Any], captured: Captured, inputs: Sequence[Tensor], versions: dict[str, str]
) -> dict[str, str]:
    """Return what the pieces of a Jacobian depend on, by name: each is another if the Jacobian may be.

    What the function reads beside its input shows in its output, or else in its derivative. Sums differ by rounding
    with the number of threads, so that it is told too.
    """
    return {
        "function": _hash([_code(func)]),
        "graph": _hash([_told(captured.graph)]),
        "input": _hash(_tensors(inputs)),
        "output": _hash(_tensors(captured.outputs)),
        "derivative": _hash(_tensors(_derivative(captured))),
        "number of threads": str(torch.get_num_threads()),
        **versions,
    }


def _derivative(captured: Captured) -> list[Tensor]:
    """Return vᵀJ for a v that is always the same: where J is another, so is this, even if the output is not.

    Beyond the CPU nothing, as gradients there may differ by rounding from run to run.
    """
    (output,), (end,) = captured.outputs, captured.graph.ends
    if end is None or output.device.type != "cpu":
        return []
    generator = torch.Generator(device="cpu").manual_seed(0)
    v = torch.rand(output.shape, dtype=torch.float64, device="cpu", generator=generator)
    starts = [GradientEdge(start, 0) for start in captured.graph.starts]
    found = torch.autograd.grad(output, starts, v.to(output.dtype), retain_graph=True, allow_unused=True)
    return [part.to_dense() for part in found if part is not None]


def _hash(parts: Iterable[Any]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def _code(func: Any) -> str:
    """Return the bytecode of a function, with that of those in it; of any other callable, of what its type calls."""
    code = getattr(func, "__code__", None)
    if isinstance(code, CodeType):
        return _constant(code)
    inner = getattr(func, "func", None)  # of a partial
    if inner is not None:
        return _code(inner)
    kind = type(func)
    called = [getattr(getattr(kind, name, None), "__code__", None) for name in ("forward", "__call__")]
    return f"{kind.__module__}.{kind.__qualname__} {list(map(_constant, called))}"


def _constant(value: Any) -> str:
    """Return a constant of a function in words that are the same in every process."""
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {list(map(_constant, value.co_consts))}"
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _told(graph: Graph) -> str:
    nodes = [
        (type(fn).__name__, [(tuple(meta.shape), str(meta.dtype)) for meta in fn._input_metadata])
        for fn in graph.nodes
    ]
    return f"{nodes} {graph.edges} {graph.ends}"


def _tensors(tensors: Iterable[Tensor]) -> Iterable[Any]:
    for tensor in tensors:
        yield f"{tuple(tensor.shape)} {tensor.dtype}"
        if tensor.numel():  # without entries a stride of zero stays, which no bytes can be viewed by
            yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
