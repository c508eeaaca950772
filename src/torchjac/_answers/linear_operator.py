"""A Jacobian beside NumPy and SciPy: arrays multiplied, and a `LinearOperator`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from .._blocks.block import TensorOptions
from .consolidate import consolidated
from .forms import Form, ProductOfFactors
from .products import times, transposed, with_owner
from .sparse import import_scipy

#: Vectors as they are given: the answer is of the same kind
V = TypeVar("V", Tensor, numpy.ndarray)


def on_array(
    like: TensorOptions, array: numpy.ndarray, act: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> numpy.ndarray:
    """Return what an operation gives of an array, as an array; one whose dims are flattened comes back so."""
    flat = len(shape) != 1 and array.ndim == 1 and array.size == prod(shape)
    tensor = torch.from_numpy(numpy.ascontiguousarray(array)).to(like.device, like.dtype)
    found = act(tensor.reshape(shape) if flat else tensor).detach().cpu().numpy()
    return found.reshape(-1) if flat else found


def linear_operator(form: Form) -> Any:
    """Return SciPy's operator with the flattened input and output as vectors."""
    scipy = import_scipy("as_linear_operator").sparse.linalg
    owner, is_transpose = with_owner(form)
    whole = consolidated(owner).for_many(owner) if not isinstance(form, ProductOfFactors) else None
    if whole is not None:
        return scipy.aslinearoperator(whole.T if is_transpose else whole)
    for factor in form.factors if isinstance(form, ProductOfFactors) else ():
        inner, _ = with_owner(factor)
        consolidated(inner).for_many(inner)

    def by(operator: Form) -> Callable[[numpy.ndarray], numpy.ndarray]:
        def run(array: numpy.ndarray) -> numpy.ndarray:
            tensor = torch.from_numpy(numpy.ascontiguousarray(array)).to(form.device, form.dtype)
            tail = tuple(tensor.shape[1:])
            found = times(operator, tensor.reshape((*operator.in_shape, *tail)))
            return found.detach().reshape((prod(operator.out_shape), *tail)).cpu().numpy()

        return run

    forward, backward = by(form), by(transposed(form))
    dtype = torch.empty(0, dtype=form.dtype).numpy().dtype
    return scipy.LinearOperator(
        form.matrix_shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=dtype
    )
