"""What a user writes, with the types that checkers must see; read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

import torchjac
from torchjac import Jacobian, hessian, jacfwd, jacobian, jacrev, value_and_jacobian

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


def of_parameters(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Of a tree."""
    return parameters["weight"] @ x


x = torch.zeros(3)
J = jacobian(f)(x, scale=2.0)
same(Jacobian, J)
step: Tensor = J.solve(x)
shape: torch.Size = J.shape
both: tuple[Jacobian, Jacobian] = jacobian(g, (0, 1))(x, x)
pair: tuple[Jacobian, str] = jacobian(with_aux, has_aux=True)(x)
forward: Jacobian = jacobian(f, mode="forward", memory="1 GB")(x)

same(Tensor, jacrev(f)(x, 2.0))
twice: Callable[[Tensor], Tensor] = jacrev(jacrev(f))
dense: tuple[Tensor, Tensor] = jacrev(g, (0, 1), chunk_size=4)(x, x)
sparse: Tensor = jacrev(f, layout=torch.sparse_csr)(x)
column: Tensor = jacfwd(f)(x)

curvature: Tensor = hessian(f, chunk_size=8)(x)
blocks: Jacobian = hessian(f, layout="operator")(x)

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
