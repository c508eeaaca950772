"""What a Jacobian is multiplied with and added to: vectors, numbers, diagonals and other Jacobians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy
from torch import Tensor

from . import arithmetic, factored, products, scaling
from .linear_operator import on_array
from .low_rank_update import Plus

if TYPE_CHECKING:
    from .operator import Jacobian


def is_jacobian(value: Any) -> TypeGuard[Jacobian]:
    """Return whether a value is a Jacobian."""
    return isinstance(value, Algebra)


class Algebra:
    """Products, sums and multiples."""

    @property
    def mT(self: Jacobian) -> Jacobian:
        """The transpose, ∂output/∂input with the ends swapped; costs nothing, the values are shared.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x[1:])(torch.zeros(3)).mT.to_dense()
            tensor([[0., 0.],
                    [1., 0.],
                    [0., 1.]])
        """
        if self.factors:
            return factored.chained([factor.mT for factor in reversed(self.factors)])
        if self._terms:
            return self._new(self.in_shape, self.out_shape, Plus(*(term.mT for term in self._terms)))
        found = self._parent
        if found is None:
            found = self._new(self.in_shape, self.out_shape, products.transposed(self.blocks))
            vars(found)["_transpose_of"] = self
        return found

    @property
    def T(self: Jacobian) -> Jacobian:
        """The transpose, as `mT`."""
        return self.mT

    def __matmul__(self: Jacobian, other: Any) -> Any:
        """``J @ v``: Σ_i J[o…, i…] v[i…] for a tensor of shape ``in_shape``; or the product of two Jacobians.

        The result has shape ``out_shape``; the cost is that of reading what is stored, and ``v`` where each
        entry is named. ``J @ K``, for ``K`` whose outputs are the inputs of ``J``, is a `Jacobian` again (the
        chain rule), each block of one composed with each of the other. For many vectors see `matmat`. An array of
        NumPy gives one.

        Raises:
            TypeError: if ``other`` is neither a tensor nor a Jacobian.
            ValueError: if its shape, dtype or device does not fit.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: x.cumsum(0) ** 2)(torch.ones(3))
            >>> J @ torch.ones(3)
            tensor([ 2.,  8., 18.])
        """
        if is_jacobian(other):
            if other.out_shape != self.in_shape or other.dtype != self.dtype or other.device != self.device:
                raise ValueError(
                    f"J @ K: the outputs of K must be the inputs of J, {self.in_shape} in {self.dtype} on "
                    f"{self.device}; got {other.out_shape} in {other.dtype} on {other.device}"
                )
            if self.factors or other.factors:
                return factored.chained([self, other])
            return factored.multiplied(self, other)
        if isinstance(other, numpy.ndarray):
            return on_array(self, other, lambda v: self @ v, self.in_shape)
        return self._times(products.check_operand(other, self.in_shape, self, "J @ v: v"))

    def __rmatmul__(self: Jacobian, other: Any) -> Any:
        """``v @ J``: Σ_o v[o…] J[o…, i…] for a tensor of shape ``out_shape``, of shape ``in_shape``.

        Costs what ``J @ v`` does, and raises the same.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> torch.tensor([1.0, 10.0]) @ jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(3))
            tensor([-1., -9., 10.])
        """
        if isinstance(other, numpy.ndarray):
            return on_array(self, other, lambda v: v @ self, self.out_shape)
        vector = products.check_operand(other, self.out_shape, self, "v @ J: v")
        return self.mT._times(vector)

    def __add__(self: Jacobian, other: Any) -> Jacobian:
        """``J + K``: the sum entry by entry of two Jacobians of the same shape, and ``J - K`` the difference.

        Blocks at the same places are added, others stay side by side. `add_diagonal` adds to the diagonal.

        Raises:
            TypeError: if ``other`` is no Jacobian.
            ValueError: if its shapes, dtype or device differ.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> x = torch.arange(1.0, 4.0)
            >>> J = jacobian(torch.sin)(x) - 2 * jacobian(lambda x: x**2)(x)
            >>> J.diagonal()
            tensor([ -3.4597,  -8.4161, -12.9900])
            >>> J.stored
            3
        """
        return arithmetic.added(self, self._like(other, "J + K"))

    def __radd__(self: Jacobian, other: Any) -> Jacobian:
        """``0 + J``, with which `sum` of several begins."""
        return self if isinstance(other, int) and other == 0 else self + other

    def __sub__(self: Jacobian, other: Any) -> Jacobian:
        """``J - K``, as `__add__`."""
        return arithmetic.added(self, -self._like(other, "J - K"))

    def __rsub__(self: Jacobian, other: Any) -> Jacobian:
        """``K - J``, refused as ``J - K`` is where K is no Jacobian."""
        return -self + self._like(other, "K - J")

    def __neg__(self: Jacobian) -> Jacobian:
        """``-J``."""
        return arithmetic.scaled(self, -1.0)

    def __mul__(self: Jacobian, by: Any) -> Jacobian:
        """``J * c``, ``c * J`` and ``J / c``: every entry times or by a number, or a 0-dim tensor.

        ``J * r``, for a tensor of shape ``out_shape``, scales rows: each output's by its number. ``c * J``, for one
        of shape ``in_shape``, scales columns. Costs the numbers stored.

        Raises:
            TypeError: if ``c`` is neither.
            ValueError: if its shape, dtype or device does not fit.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: x[1:] * x[:-1])(torch.arange(1.0, 4.0))
            >>> (J / 2).to_dense()
            tensor([[1.0000, 0.5000, 0.0000],
                    [0.0000, 1.5000, 1.0000]])
            >>> (J * torch.tensor([1.0, 10.0])).to_dense()
            tensor([[ 2.,  1.,  0.],
                    [ 0., 30., 20.]])
        """
        if isinstance(by, Tensor) and by.dim():
            return scaling.scaled_rows(self, by, "J * r: r, which scales rows,")
        return arithmetic.scaled(self, arithmetic.check_number(by, self, "J * c: c"))

    def __rmul__(self: Jacobian, by: Any) -> Jacobian:
        """``c * J``, as `__mul__`."""
        if isinstance(by, Tensor) and by.dim():
            return scaling.scaled_columns(self, by, "c * J: c, which scales columns,")
        return self.__mul__(by)

    def __truediv__(self: Jacobian, number: Any) -> Jacobian:
        """``J / c`` and ``J / r``, as `__mul__`."""
        if isinstance(number, Tensor) and number.dim():
            return scaling.scaled_rows(self, number.reciprocal(), "J / r: r, which scales rows,")
        return arithmetic.scaled(self, arithmetic.inverse(arithmetic.check_number(number, self, "J / c: c")))

    def add_diagonal(self: Jacobian, values: Tensor | float) -> Jacobian:
        """J + diag(v), for output and input of one shape: v is a number, or has a number for each entry.

        The matrix of a damped step, JᵀJ + λI, is ``J.gram().add_diagonal(λ)``; that of an implicit one, I − hJ, is
        ``(-h * J).add_diagonal(1)``.

        Raises:
            TypeError: if ``values`` is neither a number nor a tensor.
            ValueError: if output and input have different shapes, or the values' shape, dtype or device does not fit.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(3))
            >>> J.gram().add_diagonal(0.5).to_dense()
            tensor([[ 1.5000, -1.0000,  0.0000],
                    [-1.0000,  2.5000, -1.0000],
                    [ 0.0000, -1.0000,  1.5000]])
        """
        return arithmetic.add_diagonal(self, values)

    def matmat(self: Jacobian, vectors: Any) -> Any:
        """``J @ v`` for k vectors at once: shape ``in_shape + (k,)`` gives ``out_shape + (k,)``; an array gives one.

        Costs k times as much arithmetic as one, in the same number of calls. ``J.mT.matmat`` multiplies from
        the other side.

        Raises:
            TypeError: if ``vectors`` is no tensor.
            ValueError: if its shape, dtype or device does not fit.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: 2 * x)(torch.zeros(2)).matmat(torch.eye(2))
            tensor([[2., 0.],
                    [0., 2.]])
        """
        if isinstance(vectors, numpy.ndarray):
            return on_array(self, vectors, self.matmat, self.in_shape)
        vectors = products.check_operand(vectors, self.in_shape, self, "matmat: V", batch=True)
        return self._times(vectors)

    def gram(self: Jacobian, weight: Tensor | Jacobian | None = None) -> Jacobian:
        """JᵀJ, or JᵀWJ, as an operator of shape ``in_shape + in_shape``.

        It is the matrix of a Gauss–Newton step (Nocedal & Wright, Numerical Optimization, eq. 10.23), as sparse
        as the product is. Each block is composed with each other, at the cost of the numbers stored; where many
        hold tables (gathers and scatters), they go through one sparse product of coordinate lists instead.

        Args:
            weight: the diagonal of W, of shape ``out_shape``; or its blocks, a square matrix for each entry of the
                output's first dim, of shape ``out_shape + out_shape[1:]``; or W as a Jacobian.

        Raises:
            TypeError: if the weight is no tensor.
            ValueError: if its shape, dtype or device does not fit.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(3))
            >>> J.gram().to_dense()
            tensor([[ 1., -1.,  0.],
                    [-1.,  2., -1.],
                    [ 0., -1.,  1.]])
        """
        wide = isinstance(weight, Tensor) and weight.dim() > len(self.out_shape)
        if is_jacobian(weight) or wide:
            weighted: Jacobian = self.mT @ (products.weighting(weight, self) @ self)
            return weighted
        if weight is not None:
            weight = products.check_operand(weight, self.out_shape, self, "gram: weight")
        if self.factors:
            first, *rest = self.factors
            return factored.chained([*(factor.mT for factor in reversed(rest)), first.gram(weight), *rest])
        found = products.gram(self, weight)
        return self._new(self.in_shape, self.in_shape, tuple(found))

    def _like(self: Jacobian, other: Any, what: str) -> Jacobian:
        """Return another Jacobian that has this one's shapes, dtype and device."""
        if not is_jacobian(other):
            raise TypeError(
                f"{what}: K must be a Jacobian, got {type(other).__name__}; add_diagonal adds to the diagonal, so that "
                "1 - J is (-J).add_diagonal(1), and to_dense() gives a tensor"
            )
        mine, others = ((j.out_shape, j.in_shape, j.dtype, j.device) for j in (self, other))
        if mine != others:
            raise ValueError(
                f"{what}: both must have the same shapes, dtype and device, got {self.out_shape} by {self.in_shape} in "
                f"{self.dtype} on {self.device} and {other.out_shape} by {other.in_shape} in {other.dtype} on "
                f"{other.device}"
            )
        return other
