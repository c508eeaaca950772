"""A function of tensors as NumPy's optimisers call it: flat float64 arrays, one evaluation for each point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from .._answers.operator import Jacobian
from .call_function import Recorded, record
from .operators import operators

Array = numpy.ndarray


class NumpyFunction:
    """The value of a function and its Jacobian at the point of the last call, and what comes before the point.

    The function is called once for each point that is new: what is asked first, be it value or Jacobian, leaves the
    graph for the other.
    """

    def __init__(self, func: Callable[..., Tensor], shape: tuple[int, ...], what: str) -> None:
        self._func, self._shape, self._what = func, shape, what
        self._key: tuple[Any, ...] = ()
        self._recorded: Recorded | None = None
        self._jacobian: Jacobian | None = None
        #: How often the function was called.
        self.calls = 0

    def _at(self, x: Array, before: tuple[Any, ...]) -> Recorded:
        key = (before, x.tobytes())
        if self._recorded is None or key != self._key:
            point = torch.from_numpy(numpy.array(x, dtype=numpy.float64)).reshape(self._shape)
            self.calls += 1
            found = record(self._what, self._func, len(before), False, (*before, point), {})
            if len(found.captured.outputs) != 1:
                raise ValueError(
                    f"{self._what}: the function must return one tensor, got {len(found.captured.outputs)}"
                )
            self._key, self._recorded, self._jacobian = key, found, None
        return self._recorded

    def value(self, x: Array, *before: Any) -> Array:
        """Return the output, flattened, in memory of its own: what the caller writes there is not in the graph."""
        output = self._at(x, before).captured.outputs[0].detach()
        return output.to("cpu", torch.float64, copy=True).numpy().reshape(-1)

    def scalar(self, x: Array) -> float:
        """Return the output of a function that returns one number."""
        found = self.value(x)
        if found.size != 1:
            raise ValueError(f"{self._what}: the function must return one number, got {found.size}")
        return float(found[0])

    def jacobian(self, x: Array, *before: Any) -> Jacobian:
        """Return the Jacobian by the point."""
        found = self._at(x, before)
        if self._jacobian is None:
            ((whole,),) = operators(found, self._what)
            self._jacobian = whole.detach()
        return self._jacobian

    def gradient(self, x: Array) -> Array:
        """Return the gradient of a function that returns one number, flattened."""
        return self.jacobian(x).to_dense().reshape(-1).cpu().numpy()


def start(x0: Any) -> tuple[Array, tuple[int, ...]]:
    """Return the first point as SciPy wants it, and the shape that the function wants."""
    point = x0.detach().cpu().numpy() if isinstance(x0, Tensor) else numpy.asarray(x0)
    if point.dtype.kind not in "fiu":
        raise TypeError(
            f"x0 must be a tensor or an array of real numbers, got {x0!r} of type {type(x0).__name__}"
        )
    return point.astype(numpy.float64).reshape(-1), tuple(point.shape)
