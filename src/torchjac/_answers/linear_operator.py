"""A Jacobian beside NumPy and SciPy: arrays multiplied, and a `LinearOperator`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from .sparse import import_scipy

if TYPE_CHECKING:
    from .operator import Jacobian


def on_array(
    jacobian: Jacobian, array: numpy.ndarray, act: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> numpy.ndarray:
    """Return what an operation gives of an array, as an array; one whose dims are flattened comes back so."""
    flat = len(shape) != 1 and array.ndim == 1 and array.size == prod(shape)
    tensor = torch.from_numpy(numpy.ascontiguousarray(array)).to(jacobian.device, jacobian.dtype)
    found = act(tensor.reshape(shape) if flat else tensor).detach().cpu().numpy()
    return found.reshape(-1) if flat else found


def linear_operator(jacobian: Jacobian) -> Any:
    """Return SciPy's operator with the flattened input and output as vectors."""
    scipy = import_scipy("as_linear_operator").sparse.linalg
    rows, columns = prod(jacobian.out_shape), prod(jacobian.in_shape)
    transpose = jacobian.mT
    parent = jacobian._parent
    whole = (jacobian if parent is None else parent)._consolidated.for_many()
    if whole is not None:
        return scipy.aslinearoperator(whole if parent is None else whole.T)
    for factor in jacobian.factors:
        factor._consolidated.for_many()

    def times(operator: Jacobian) -> Callable[[numpy.ndarray], numpy.ndarray]:
        def run(array: numpy.ndarray) -> numpy.ndarray:
            tensor = torch.from_numpy(numpy.ascontiguousarray(array)).to(jacobian.device, jacobian.dtype)
            tail = tuple(tensor.shape[1:])
            found = operator._times(tensor.reshape((*operator.in_shape, *tail)))
            return found.detach().reshape((prod(operator.out_shape), *tail)).cpu().numpy()

        return run

    forward, backward = times(jacobian), times(transpose)
    dtype = torch.empty(0, dtype=jacobian.dtype).numpy().dtype
    return scipy.LinearOperator(
        (rows, columns), matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=dtype
    )
