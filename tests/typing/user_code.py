"""What a user writes, with the types that checkers must see; read by mypy and pyright, and run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

import torchjac
from torchjac import (
    Jacobian,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacobian,
    jacrev,
    value_and_jacobian,
)

T = TypeVar("T")


def same(kind: type[T], value: T) -> None:
    """Accept a value of a type."""


def f(x: Tensor, scale: float = 1.0) -> Tensor:
    """Of one tensor."""
    return x.sin() * scale


def g(x: Tensor, y: Tensor) -> Tensor:
    """Of two."""
    return x * y


def with_aux(x: Tensor) -> tuple[Tensor, str]:
    """With something beside."""
    return x, "aux"


def energy(x: Tensor, scale: float = 1.0) -> Tensor:
    """One number."""
    return (x * x).sum() * scale


def energy_with_aux(x: Tensor) -> tuple[Tensor, str]:
    """One number with something beside."""
    return energy(x), "aux"


def of_parameters(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Of a tree."""
    return parameters["weight"] @ x


x = torch.zeros(3)
J = jacobian(f)(x, scale=2.0)
same(Jacobian, J)
same(Tensor, J.solve(x))
same(Tensor, J @ x)
same(Tensor, J.matmat(x[:, None]))
same(Jacobian, J @ J)
same(numpy.ndarray, J.lstsq(x.numpy()))
shape: torch.Size = J.shape
both: tuple[Jacobian, Jacobian] = jacobian(g, (0, 1))(x, x)
second: Callable[[Tensor, Tensor], Jacobian] = jacobian(g, 1)
pair: tuple[Jacobian, str] = jacobian(with_aux, has_aux=True)(x)
forward: Jacobian = jacobian(f, mode="forward", memory="1 GB")(x)

same(Tensor, jacrev(f)(x, 2.0))
twice: Callable[[Tensor], Tensor] = jacrev(jacrev(f))
dense: tuple[Tensor, Tensor] = jacrev(g, (0, 1), chunk_size=4)(x, x)
sparse: Tensor = jacrev(f, layout=torch.sparse_csr)(x)
column: Tensor = jacfwd(f)(x)

curvature: Tensor = hessian(f, chunk_size=8)(x)
blocks: Jacobian = hessian(f, layout="operator")(x)
fast = torchjac.compile(jacrev(f), backend="eager")
same(Tensor, fast(x, scale=2.0))
half: Tensor = hessian(energy, layout=torch.sparse_csr, triangle="lower")(x)

same(Tensor, grad(energy)(x, scale=2.0))
slope, at = grad_and_value(energy)(x)
same(Tensor, at)
slope, (at, text) = grad_and_value(energy_with_aux, has_aux=True)(x)

value, operator = value_and_jacobian(f)(x)
same(Tensor, value)
same(Jacobian, operator)
(value, text), operator = value_and_jacobian(with_aux, has_aux=True)(x)
same(str, text)

# Where the types of the function do not tell, whatever comes is taken.
tree: dict[str, Tensor] = jacrev(of_parameters)({"weight": x}, x)
of_lambda: Jacobian = jacobian(lambda x: x.sin())(x)
of_module: Tensor = jacrev(torch.nn.Linear(3, 2))(x)
batched: Any = torchjac.vmap(jacrev(f))(x)
by_second: Callable[[Tensor, Tensor], Tensor] = jacrev(g, argnums=1)
both_at_once: tuple[Tensor, tuple[Jacobian, Jacobian]] = value_and_jacobian(g, (0, 1))(x, x)
