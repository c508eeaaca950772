"""A function of tensors as NumPy's optimisers call it: flat float64 arrays, one evaluation for each point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
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

    def __init__(
        self, func: Callable[..., Tensor], shape: tuple[int, ...], what: str, size: int | None = None
    ) -> None:
        if not callable(func):
            raise TypeError(f"{what}: the function must be callable, got {type(func).__name__}")
        self._func, self._shape, self._what = func, shape, what
        #: How many numbers it must return, if that is known.
        self.size = size
        self._key: tuple[Any, ...] | None = None
        self._recorded: Recorded | None = None
        self._jacobian: Jacobian | None = None
        #: How often the function was called.
        self.calls = 0

    def _at(self, x: Any, before: tuple[Any, ...], after: tuple[Any, ...]) -> Recorded:
        flat = numpy.array(x, dtype=numpy.float64)
        if flat.size != prod(self._shape):
            raise ValueError(
                f"{self._what}: the point must have {prod(self._shape)} numbers (shape {self._shape}), got {flat.size}"
            )
        key = _values((flat, *before, *after))
        if self._recorded is None or key is None or key != self._key:
            point = torch.from_numpy(flat).reshape(self._shape)
            self.calls += 1
            found = record(self._what, self._func, len(before), False, (*before, point, *after), {})
            outputs = found.captured.outputs
            if len(outputs) != 1:
                raise ValueError(f"{self._what}: the function must return one tensor, got {len(outputs)}")
            if self.size not in (None, outputs[0].numel()):
                raise ValueError(
                    f"{self._what}: the function must return {self.size} numbers here, got {outputs[0].numel()} "
                    f"(shape {tuple(outputs[0].shape)})"
                )
            self._key, self._recorded, self._jacobian = key, found, None
        return self._recorded

    def value(self, x: Any, *args: Any, before: tuple[Any, ...] = ()) -> Array:
        """Return the output, flattened, in memory of its own: what the caller writes there is not in the graph.

        ``args`` are what SciPy's ``args`` gives, and come after the point.
        """
        output = self._at(x, before, args).captured.outputs[0].detach()
        return output.to("cpu", torch.float64, copy=True).numpy().reshape(-1)

    def scalar(self, x: Any, *args: Any) -> float:
        """Return the output of a function that returns one number."""
        found = self.value(x, *args)
        if found.size != 1:
            raise ValueError(f"{self._what}: the function must return one number, got {found.size}")
        return float(found[0])

    def jacobian(self, x: Any, *args: Any, before: tuple[Any, ...] = ()) -> Jacobian:
        """Return the Jacobian by the point."""
        found = self._at(x, before, args)
        if self._jacobian is None:
            ((whole,),) = operators(found, self._what)
            self._jacobian = whole.detach()
        return self._jacobian

    def dense(self, x: Any, *args: Any, before: tuple[Any, ...] = ()) -> Array:
        """Return the Jacobian as an array with a row for each output."""
        found = self.jacobian(x, *args, before=before).to_dense()
        return found.reshape(-1, prod(self._shape)).cpu().numpy()

    def gradient(self, x: Any, *args: Any) -> Array:
        """Return the gradient of a function that returns one number, flattened."""
        return self.jacobian(x, *args).to_dense().reshape(-1).cpu().numpy()


def _values(args: Iterable[Any]) -> tuple[Any, ...] | None:
    """Return what tells arguments from others by their values; None where that is not known of one of them."""
    found: list[Any] = []
    for arg in args:
        if isinstance(arg, Array) and arg.dtype != object:
            found.append((arg.shape, arg.dtype.str, arg.tobytes()))
        elif arg is None or isinstance(arg, (bool, int, float, complex, str, numpy.generic)):
            found.append((type(arg), arg))
        else:
            return None
    return tuple(found)


def start(x0: Any) -> tuple[Array, tuple[int, ...]]:
    """Return the first point as SciPy wants it, and the shape that the function wants.

    Raises:
        TypeError: if it is not one tensor or array of real numbers.
    """
    given = type(x0).__name__
    if isinstance(x0, Tensor):
        given = f"{given} of {x0.dtype}, layout {x0.layout}"
        point = x0.detach().cpu().numpy() if x0.layout is torch.strided else None
    else:
        try:
            point = numpy.asarray(x0)
        except ValueError:  # of parts that do not make one array
            point = None
        given += f" of {point.dtype}" if isinstance(x0, Array) and point is not None else ""
    if point is None or point.dtype.kind not in "fiu":
        complex_hint = "; take torch.view_as_real" if point is not None and point.dtype.kind == "c" else ""
        raise TypeError(f"x0 must be one dense tensor or array of real numbers, got {given}{complex_hint}")
    return point.astype(numpy.float64).reshape(-1), tuple(point.shape)
