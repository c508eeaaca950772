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
    found = _linear(lambda vector: act(vector.reshape(shape) if flat else vector), array, like)
    return found.reshape(-1) if flat else found


def _linear(act: Callable[[Tensor], Tensor], array: numpy.ndarray, like: TensorOptions) -> numpy.ndarray:
    """Return what a linear operation gives of an array, of complex numbers part by part.

    Raises:
        TypeError: if the array holds no numbers.
    """
    if array.dtype.kind == "c":
        found: numpy.ndarray = _linear(act, array.real, like) + 1j * _linear(act, array.imag, like)
        return found
    if array.dtype.kind not in "biuf":
        raise TypeError(f"an array beside a Jacobian must hold numbers, got dtype {array.dtype}")
    if array.dtype.itemsize > 8 or not array.dtype.isnative:
        array = array.astype(numpy.float64)
    tensor = torch.from_numpy(numpy.require(array, requirements=["C", "W"])).to(like.device, like.dtype)
    return numpy.asarray(act(tensor).detach().cpu().numpy())


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
            tail = array.shape[1:]

            def act(vector: Tensor) -> Tensor:
                found = times(operator, vector.reshape((*operator.in_shape, *tail)))
                return found.reshape((prod(operator.out_shape), *tail))

            return _linear(act, array, form)

        return run

    forward, backward = by(form), by(transposed(form))
    dtype = torch.empty(0, dtype=form.dtype, device="cpu").numpy().dtype
    return scipy.LinearOperator(
        form.matrix_shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=dtype
    )
