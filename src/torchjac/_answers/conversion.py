"""A Jacobian written out, or handed to others: dense, sparse, in another dtype, as a matrix or operator of SciPy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._blocks.block import fitted, valued
from . import sparse
from .arithmetic import mapped
from .base import Answer
from .linear_operator import linear_operator
from .scipy_matrix import scipy_array
from .to_dense import to_dense

if TYPE_CHECKING:
    from typing_extensions import Self


class Conversion(Answer):
    """Conversions."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the same in another dtype or on another device, which are given as to `torch.Tensor.to`.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(2)).to(torch.float64).dtype
            torch.float64
        """
        like = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        if (like.dtype, like.device) == (self.dtype, self.device):
            return self
        if not like.is_floating_point():
            raise TypeError(f"to: a Jacobian is real and floating-point, got {like.dtype}")
        return self._with(mapped(self.form, lambda block: fitted(block, like.dtype, like.device), like))

    def cpu(self) -> Self:
        """Return the same on the CPU."""
        return self.to("cpu")

    def detach(self) -> Self:
        """Return the same without the graph of its values."""
        return self._with(mapped(self.form, lambda block: valued(block, sparse.cut(block.value)), self.form))

    def to_dense(self) -> Tensor:
        """Return the Jacobian as a dense tensor; costs the writing of ``shape.numel()`` numbers."""
        return to_dense(self.form)

    def to_sparse(
        self,
        layout: torch.layout = torch.sparse_coo,
        *,
        index_dtype: torch.dtype = torch.int64,
        triangle: str | None = None,
    ) -> Tensor:
        """Return the Jacobian as a sparse matrix of shape (output.numel(), input.numel()).

        Entries that are zero by structure are left out, duplicates are summed, and indices are sorted. Where they
        stand follows from the maps of the blocks without a sort; where blocks hold tables it takes a counting sort,
        once for all Jacobians with the same ones.

        Args:
            layout: ``torch.sparse_coo``, ``sparse_csr``, ``sparse_csc`` or ``sparse_bsr``, as `to_bsr` tells.
            index_dtype: ``torch.int64``, or ``torch.int32`` for CSR and CSC (what MKL and cuSPARSE like).
            triangle: "lower" or "upper" for the diagonal and what is below or above it: half of a Hessian.

        Raises:
            ValueError: if the layout is none of these, or cannot have indices of that dtype, or for another triangle.
            RuntimeError: inside vmap, which has no sparse tensors, and for CSR and CSC inside `torch.func.grad`.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: 2 * x[1:])(torch.zeros(3)).to_sparse().indices()
            tensor([[0, 1],
                    [1, 2]])
        """
        matrix: Tensor = sparse.sparse_tensor(*self.form.ends, layout, "to_sparse", index_dtype, triangle)
        return matrix

    def to_scipy(self, format: str = "csr") -> Any:
        """Return the Jacobian as a SciPy sparse array, its values copied: gradients end here.

        Costs what `to_sparse` does. Indices are int32 where they fit.

        Args:
            format: "csr", "csc", "coo" or, where the entries stand on few diagonals, "dia".

        Raises:
            ImportError: if SciPy is not installed.
            ValueError: for any other format, or "dia" where the diagonals would be mostly zeros.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(4)).to_scipy("dia").offsets.tolist()
            [0, 1]
        """
        return scipy_array(*self.form.ends, format)

    def as_linear_operator(self) -> Any:
        """Return SciPy's `LinearOperator` of shape (output.numel(), input.numel()), for its iterative solvers.

        Raises:
            ImportError: if SciPy is not installed.

        Example:
            >>> import torch
            >>> from scipy.sparse.linalg import cg
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: 4 * x + x.roll(1) + x.roll(-1))(torch.zeros(1000, dtype=torch.float64))
            >>> x, info = cg(J.as_linear_operator(), torch.full((1000,), 6.0).numpy())
            >>> round(float(x.sum()), 6)
            1000.0
        """
        return linear_operator(self.form)

    def to_bsr(self) -> Tensor:
        """Return the Jacobian in torch's ``sparse_bsr`` layout, as ``to_sparse(torch.sparse_bsr)`` does.

        The matrix has a block for each pair of positions of the first dims of output and input that has an entry: of a
        batch one for each sample, as `block_diagonal` gives them. Costs what the blocks hold.

        Raises:
            ValueError: if output or input has no dims, or the blocks no entries.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x.cumsum(-1))(torch.zeros(3, 2)).to_bsr().values().shape
            torch.Size([3, 2, 2])
            >>> jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(3, 2)).to_bsr().values().shape
            torch.Size([4, 2, 2])
        """
        found: Tensor = sparse.sparse_tensor(*self.form.ends, torch.sparse_bsr, "to_bsr")
        return found

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Refuse: NumPy would make an array of a single object.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a Jacobian is not turned into an array by itself; to_dense().numpy() writes all entries, to_scipy() those "
            "that are named"
        )
