"""Entries of a Jacobian: its diagonal, rows, columns and blocks, and their pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import index_parts, nonzeros, sparse
from .base import Answer

if TYPE_CHECKING:
    from typing_extensions import Self


class Entries(Answer):
    """Parts, and the places of entries."""

    @property
    def nnz(self) -> int:
        """The number of entries that are not zero by structure: no value is looked at.

        Raises:
            RuntimeError: on the meta device where several blocks may name the same entry, which tables tell.
        """
        return nonzeros.nnz(self.form)

    def diagonal(self) -> Tensor:
        """Return the entries J[i…, i…], of shape ``out_shape``, where output and input have the same shape.

        Where the shapes differ, it is the diagonal of the matrix, a vector of min(rows, columns) numbers.
        Costs what is stored; a block that misses the diagonal costs nothing.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x.cumsum(0) * x)(torch.ones(3)).diagonal()
            tensor([2., 3., 4.])
        """
        return index_parts.diagonal(self.form)

    def trace(self) -> Tensor:
        """Return the sum of the diagonal, which for a vector field is its divergence; costs what `diagonal` does.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(1000)).trace()
            tensor(1000.)
        """
        return self.diagonal().sum()

    def row(self, index: int | tuple[int, ...]) -> Tensor:
        """Return the gradient of one entry of the output, of shape ``in_shape``.

        Costs the writing of ``in_shape`` numbers, and where blocks hold tables a pass over these.

        Args:
            index: an int for an output of one dim, else a tuple with an int for each dim.

        Raises:
            TypeError: if the index is anything else.
            IndexError: if it does not name one entry of the output.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x[1:] - x[:-1])(torch.zeros(4)).row(-1)
            tensor([ 0.,  0., -1.,  1.])
        """
        return index_parts.row(self.form, index)

    def __getitem__(self, key: Any) -> Self:
        """Return the Jacobian of ``output[key]``, for any key that indexes a tensor; structure is kept.

        What a tuple has beyond the dims of the output chooses inputs: ``J[:, columns]`` of a function between vectors.

        Ints and slices keep affine maps affine; a tensor or list of rows costs a table of these, any other key
        a table of all that it chooses.

        Raises:
            IndexError: if the key does not fit the output.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(torch.sin)(torch.zeros(1_000_000))
            >>> J[::2]
            Jacobian(shape=(500000,)+(1000000,), nnz=500,000 (1e-06 of 500,000,000,000), blocks=1, ...)
        """
        return self._with(index_parts.select(self.form, key))

    def block_diagonal(self) -> Tensor:
        """Return the blocks on the diagonal of the first dim: D[b, o…, i…] = J[b, o…; b, i…].

        For a function that treats the samples of a batch apart these are the Jacobians of the samples, as
        ``vmap(jacrev(f))`` gives; they are read off by index law, so for any other function what stands
        beside the diagonal is left out. Costs B·m·n numbers, nothing more where the blocks hold them that way.

        Returns:
            A tensor of shape ``(B, *out_shape[1:], *in_shape[1:])``.

        Raises:
            ValueError: if output and input do not begin with the same dim.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: x.square().sum(-1))(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            >>> J.block_diagonal()
            tensor([[2., 4.],
                    [6., 8.]])
        """
        return index_parts.block_diagonal(self.form)

    def pattern(self, layout: torch.layout = torch.sparse_coo) -> Tensor:
        """Return where entries stand, as a boolean sparse matrix of shape (output.numel(), input.numel()).

        It is `to_sparse` with True for every entry that is not zero by structure, whatever its value, and costs
        the same.

        Raises:
            ValueError: if the layout is none of ``torch.sparse_coo``, ``sparse_csr`` and ``sparse_csc``.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x[1:] * x[:-1])(torch.zeros(3)).pattern().to_dense()
            tensor([[ True,  True, False],
                    [False,  True,  True]])
        """
        matrix: Tensor = sparse.pattern_tensor(*self.form.ends, layout)
        return matrix
