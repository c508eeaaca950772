"""Products and sums of a Jacobian: with vectors, numbers, diagonals and other Jacobians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy
from torch import Tensor

from . import arithmetic, products
from .base import Answer
from .forms import Form
from .linear_operator import V, on_array

if TYPE_CHECKING:
    from typing_extensions import Self


class Algebra(Answer):
    """Products, sums and multiples."""

    @property
    def mT(self) -> Self:
        """The transpose, ∂output/∂input with the ends swapped; costs nothing, the values are shared.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x[1:])(torch.zeros(3)).mT.to_dense()
            tensor([[0., 0.],
                    [1., 0.],
                    [0., 1.]])
        """
        return self._with(products.transposed(self.form))

    @property
    def T(self) -> Self:
        """The transpose, as `mT`."""
        return self.mT

    @overload
    def __matmul__(self, other: Answer) -> Self: ...

    @overload
    def __matmul__(self, other: V) -> V: ...

    def __matmul__(self, other: Any) -> Any:
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
        if isinstance(other, Answer):
            if other.out_shape != self.in_shape or other.dtype != self.dtype or other.device != self.device:
                raise ValueError(
                    f"J @ K: the outputs of K must be the inputs of J, {self.in_shape} in {self.dtype} on "
                    f"{self.device}; got {other.out_shape} in {other.dtype} on {other.device}"
                )
            return self._with(products.composed(self.form, other.form))
        if isinstance(other, numpy.ndarray):
            return on_array(self, other, lambda v: self @ v, self.in_shape)
        return products.times(self.form, products.check_operand(other, self.in_shape, self, "J @ v: v"))

    def __rmatmul__(self, other: V) -> V:
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
        return products.times(products.transposed(self.form), vector)

    def __add__(self, other: Any) -> Self:
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
        return self._with(arithmetic.added(self.form, self._like(other, "J + K").form))

    def __radd__(self, other: Any) -> Self:
        """``0 + J``, with which `sum` of several begins."""
        return self if isinstance(other, int) and other == 0 else self + other

    def __sub__(self, other: Any) -> Self:
        """``J - K``, as `__add__`."""
        return self._with(
            arithmetic.added(self.form, arithmetic.scaled(self._like(other, "J - K").form, -1.0))
        )

    def __rsub__(self, other: Any) -> Self:
        """``K - J``, refused as ``J - K`` is where K is no Jacobian."""
        return self._with(
            arithmetic.added(arithmetic.scaled(self.form, -1.0), self._like(other, "K - J").form)
        )

    def __neg__(self) -> Self:
        """``-J``."""
        return self._with(arithmetic.scaled(self.form, -1.0))

    def __mul__(self, by: Any) -> Self:
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
            return self._with(arithmetic.scaled_rows(self.form, by, "J * r: r, which scales rows,"))
        return self._with(arithmetic.scaled(self.form, arithmetic.check_number(by, self, "J * c: c")))

    def __rmul__(self, by: Any) -> Self:
        """``c * J``, as `__mul__`."""
        if isinstance(by, Tensor) and by.dim():
            return self._with(arithmetic.scaled_columns(self.form, by, "c * J: c, which scales columns,"))
        return self.__mul__(by)

    def __truediv__(self, number: Any) -> Self:
        """``J / c`` and ``J / r``, as `__mul__`."""
        if isinstance(number, Tensor) and number.dim():
            rows = arithmetic.scaled_rows(self.form, number.reciprocal(), "J / r: r, which scales rows,")
            return self._with(rows)
        by = arithmetic.inverse(arithmetic.check_number(number, self, "J / c: c"))
        return self._with(arithmetic.scaled(self.form, by))

    def add_diagonal(self, values: Tensor | float) -> Self:
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
        return self._with(arithmetic.add_diagonal(self.form, values))

    def matmat(self, vectors: V) -> V:
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
        return products.times(self.form, vectors)

    def gram(self, weight: Tensor | Answer | None = None) -> Self:
        """JᵀJ, or JᵀWJ, as an operator of shape ``in_shape + in_shape``.

        It is the matrix of a Gauss–Newton step (Nocedal & Wright, Numerical Optimization, eq. 10.23), as sparse
        as the product is. Each block is composed with each other, at the cost of the numbers stored; where many
        hold tables (gathers and scatters), they go through one sparse product of coordinate lists instead. A few rows
        that are nearly full, as of a sum, are kept apart as a product of low rank.

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
        given = weight.form if isinstance(weight, Answer) else weight
        if isinstance(given, Form) or (isinstance(given, Tensor) and given.dim() > len(self.out_shape)):
            weighted = products.composed(products.weighting(given, self.form), self.form)
            return self._with(products.composed(products.transposed(self.form), weighted))
        if given is not None:
            given = products.check_operand(given, self.out_shape, self, "gram: weight")
        return self._with(products.gram(self.form, given))

    def _like(self, other: Any, what: str) -> Answer:
        """Return another Jacobian that has this one's shapes, dtype and device."""
        if not isinstance(other, Answer):
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
