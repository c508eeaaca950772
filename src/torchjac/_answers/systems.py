"""Systems with a Jacobian as their matrix, least squares and determinants; factors are kept with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
from torch import Tensor

from . import lstsq, products, solve
from .base import Answer
from .linear_operator import V, on_array
from .solve import SlogDet

#: What there is in place of a method of tensors
_INSTEAD = {
    "inverse": "solve(b) solves a system with it",
    "logdet": "slogdet() gives the sign and log |det|",
    "det": "slogdet() gives the sign and log |det|",
    "mm": "J @ K, J @ v and matmat are products",
    "matmul": "J @ K, J @ v and matmat are products",
}


class Systems(Answer):
    """Solutions and determinants."""

    def solve(self, right: V, solver: Any = None, preconditioner: Any = None) -> V:
        """Return X with J X = right, of shape ``in_shape`` for one right side and ``in_shape + (k,)`` for k of them.

        `solved_as` tells the way. "diagonal" divides; "block-diagonal" solves its blocks by `torch.linalg.solve`;
        "dense" writes it out and uses `torch.linalg.solve`; "low-rank plus" goes by Woodbury's formula; "product" by a
        sparse system that has both factors in it. A "sparse" one is factorised on the CPU by the first way that its
        pattern allows, which `explain` then tells:

        - a narrow band, as it stands or in the order of reverse Cuthill-McKee, by LAPACK: Cholesky where it is
          symmetric and positive definite;
        - a triangle by substitution;
        - an arrow, small blocks on the diagonal beside a border, by the Schur complement of the border;
        - anything else by SciPy's SuperLU, in the ordering for its pattern and diagonal.

        The factors are kept: for more right sides, for `mT`, `slogdet` and the backward pass. What follows from the
        pattern is kept for the next Jacobian with the same one. Half precision is solved in float32. Differentiable in
        the right side and the values.

        Args:
            right: shape ``out_shape`` or ``out_shape + (k,)``; an array of NumPy gives one.
            solver: "superlu", "pardiso" (needs pypardiso), "mumps" (python-mumps), "qdldl" (of that name, for symmetric
                quasi-definite matrices), SciPy's "cg", "gmres" or "minres"; or an object with ``factor(matrix)``, which
                is given SciPy's matrix by columns, ``solve(factors, b)`` and ``solve_transposed(factors, b)`` for b of
                shape (n, k).
            preconditioner: of an iterative solver: "jacobi", "block-jacobi", "ilu", "amg" (needs pyamg), or what
                SciPy takes.

        Raises:
            TypeError: if ``right`` is no tensor.
            ValueError: if it does not fit, or there are not as many outputs as inputs.
            torch.linalg.LinAlgError: if the matrix is singular.
            ImportError: if it is solved as "sparse" and SciPy is not installed.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: 4 * x + x.roll(1) + x.roll(-1))(torch.zeros(1000, dtype=torch.float64))
            >>> J.solved_as, J.solve(torch.full((1000,), 6.0, dtype=torch.float64)).sum().round(decimals=9)
            ('sparse', tensor(1000., dtype=torch.float64))
        """
        solve.check_square(self.form, "solve")
        if isinstance(right, numpy.ndarray):
            return on_array(self, right, lambda b: self.solve(b, solver, preconditioner), self.out_shape)
        batch = isinstance(right, Tensor) and right.dim() == len(self.out_shape) + 1
        right = products.check_operand(right, self.out_shape, self, "solve: b", batch=batch)
        if solver is None and preconditioner is None:
            return solve.solve(self.form, right)
        return solve.solve_by(self.form, right, solver, preconditioner)

    def lstsq(self, right: V) -> V:
        """Return the x with the least |J x − b|, and of several the shortest; J has full rank.

        By QR where J is dense or block-diagonal, else by a sparse system that has J and Jᵀ in it: the product JᵀJ,
        which squares the condition, is not formed. Differentiable as `solve` is.

        Args:
            right: shape ``out_shape`` or ``out_shape + (k,)``; an array of NumPy gives one.

        Raises:
            TypeError: if ``right`` is no tensor.
            ValueError: if it does not fit.
            torch.linalg.LinAlgError: if J has not full rank.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: torch.cat([x, x.sum(0, keepdim=True)]))(torch.zeros(2))
            >>> J.lstsq(torch.tensor([1.0, 2.0, 6.0])).round(decimals=3)
            tensor([2., 3.])
        """
        if isinstance(right, numpy.ndarray):
            return on_array(self, right, self.lstsq, self.out_shape)
        batch = isinstance(right, Tensor) and right.dim() == len(self.out_shape) + 1
        return lstsq.lstsq(
            self.form, products.check_operand(right, self.out_shape, self, "lstsq: b", batch=batch)
        )

    def slogdet(self) -> SlogDet:
        """Return the sign of det J and log |det J|, as `torch.linalg.slogdet` of the matrix gives them.

        `solved_as` tells the way, as for `solve`; a sparse triangular matrix needs no factors. Differentiable; of
        a sparse matrix that is not triangular once, at the cost of a solve for each column.

        Raises:
            ValueError: if there are not as many outputs as inputs.
            ImportError: if it is solved as "sparse" and SciPy is not installed.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.exp)(torch.full((1000,), -0.5)).slogdet()
            SlogDet(sign=tensor(1.), logabsdet=tensor(-500.))
        """
        return solve.slogdet(self.form)

    if not TYPE_CHECKING:  # a checker would think that there is everything

        def __getattr__(self, name: str) -> Any:
            """Tell what to take: SciPy's solvers, which ask for "matvec", and who takes a Jacobian for a tensor."""
            if name == "matvec":
                raise TypeError(
                    "SciPy's solvers do not take a Jacobian as it is: they read its dtype as one of NumPy's, and it is "
                    "PyTorch's; give them J.as_linear_operator(), or call J.solve(b, solver='cg')"
                )
            if hasattr(Tensor, name) and not name.startswith("_"):
                instead = _INSTEAD.get(name, "to_dense() gives a tensor, which has it")
                raise AttributeError(f"a Jacobian is no tensor and has no {name!r}; {instead}")
            return object.__getattribute__(self, name)
