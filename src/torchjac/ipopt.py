"""Constrained problems of tensors for IPOPT: the object that cyipopt's interface, and those like it, ask.

minimise f(x) so that lower ≤ g(x) ≤ upper, with the Jacobian of g and the lower triangle of the Lagrangian's Hessian as
lists of nonzeros whose places never change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from ._transforms.jacobian import jacobian
from ._transforms.jacrev import jacrev
from ._transforms.numpy_function import Array, NumpyFunction, start

__all__ = ["Problem"]


class Problem:
    """A problem as IPOPT asks for it: objective, gradient, constraints, and Jacobian and Hessian with their structures.

    The structures are those at the first point; a function whose structure depends on the point is refused where they
    differ.

    Args:
        objective: gives one number.
        x0: the first point, of any shape; ``problem.x0`` is as IPOPT wants it.
        constraints: gives a tensor of them, or None.

    Example:
        >>> import torch
        >>> from torchjac.ipopt import Problem
        >>> problem = Problem(lambda x: (x**4).sum(), torch.ones(3), lambda x: x[1:] * x[:-1])
        >>> problem.jacobianstructure()
        (array([0, 0, 1, 1], dtype=int32), array([0, 1, 1, 2], dtype=int32))
        >>> problem.hessian(problem.x0, [1.0, 2.0], 1.0)
        array([12.,  1., 12.,  2., 12.])
    """

    def __init__(
        self,
        objective: Callable[[Tensor], Tensor],
        x0: Tensor | Array,
        constraints: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.x0, self._shape = start(x0)
        self._functions = objective, constraints
        self._objective = NumpyFunction(objective, self._shape, "Problem")
        self._constraints = NumpyFunction(
            _none if constraints is None else constraints, self._shape, "Problem: constraints"
        )
        self._constraints.size = self._constraints.value(self.x0).size
        self._multipliers = torch.ones(self._constraints.size, dtype=torch.float64, device="cpu")
        self._factor = 1.0
        self._places: dict[str, tuple[Array, Array]] = {}

    def objective(self, x: Array) -> float:
        """f(x)."""
        return self._objective.scalar(x)

    def gradient(self, x: Array) -> Array:
        """∇f(x)."""
        return self._objective.gradient(x)

    def constraints(self, x: Array) -> Array:
        """g(x)."""
        return self._constraints.value(x)

    def jacobian(self, x: Array) -> Array:
        """Return the nonzeros of ∂g/∂x, in the order of `jacobianstructure`."""
        whole = self._constraints.jacobian(x).to_scipy("coo")
        return self._values("jacobian", whole.coords, whole.data)

    def jacobianstructure(self) -> tuple[Array, Array]:
        """Return the rows and columns of the nonzeros of ∂g/∂x."""
        return self._structure("jacobian", lambda: self.jacobian(self.x0))

    def hessian(self, x: Array, lagrange: Any, obj_factor: float) -> Array:
        """Return the nonzeros on and below the diagonal of ∇²(σ f + Σ λᵢ gᵢ), in the order of `hessianstructure`."""
        return self._lower(x, lagrange, obj_factor)

    def hessianstructure(self) -> tuple[Array, Array]:
        """Return the rows and columns of the nonzeros of the Hessian on and below the diagonal."""
        return self._structure(
            "hessian", lambda: self._lower(self.x0, numpy.ones(len(self._multipliers)), 1.0)
        )

    def _lower(self, x: Array, lagrange: Any, obj_factor: float) -> Array:
        multipliers = torch.from_numpy(numpy.array(lagrange, dtype=numpy.float64)).reshape(-1)
        if len(multipliers) != len(self._multipliers):
            raise ValueError(
                f"Problem: hessian needs a multiplier for each of {len(self._multipliers)} constraints, "
                f"got {len(multipliers)}"
            )
        self._multipliers.copy_(multipliers)
        self._factor = float(obj_factor)
        point = torch.from_numpy(numpy.array(x, dtype=numpy.float64)).reshape(self._shape)
        whole = jacobian(jacrev(self._lagrangian))(point).detach()
        lower = whole.to_sparse(torch.sparse_coo, triangle="lower").cpu()
        row, column = lower._indices().int().numpy()
        return self._values("hessian", (row, column), lower._values().numpy())

    def _lagrangian(self, x: Tensor) -> Tensor:
        objective, constraints = self._functions
        total = self._factor * objective(x).reshape(())
        return (
            total if constraints is None else total + (constraints(x).reshape(-1) * self._multipliers).sum()
        )

    def _structure(self, name: str, evaluate: Callable[[], Array]) -> tuple[Array, Array]:
        if name not in self._places:
            evaluate()
        row, column = self._places[name]
        return row.copy(), column.copy()

    def _values(self, name: str, found: tuple[Array, Array], values: Array) -> Array:
        places = self._places.setdefault(name, found)
        if not all(map(numpy.array_equal, places, found)):
            raise ValueError(
                f"Problem: the {name} has its {len(values)} nonzeros elsewhere than at the first point, where it had "
                f"{len(places[0])}; IPOPT needs one structure for all points"
            )
        return values


def _none(x: Tensor) -> Tensor:
    """Return nothing: there are no constraints."""
    return x.reshape(-1)[:0]
