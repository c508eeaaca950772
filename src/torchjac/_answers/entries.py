"""What a Jacobian has where: its diagonal, rows, columns and blocks, and where its entries stand."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._blocks.coordinates import covers_once
from .._blocks.domain import entries_inside, inside
from .._blocks.lazy import lazy
from .._blocks.pattern_cache import pattern_of
from . import factored, index_parts, scaling, sparse

if TYPE_CHECKING:
    from .operator import Jacobian


class Entries:
    """Parts, and the places of entries."""

    @lazy
    def nnz(self: Jacobian) -> int:
        """How many entries are not zero by structure: no value is looked at.

        Raises:
            RuntimeError: on the meta device where several blocks may name the same entry, which tables tell.
        """
        if self.factors and factored.is_full(self):
            return self.shape.numel()
        if len(self.blocks) == 1 and covers_once(self.blocks[0], self.shape):
            return entries_inside(self.blocks[0])
        pattern = pattern_of(inside(self.blocks, self.device), self.out_shape, self.in_shape, self.device)
        if pattern is not None:
            return pattern.nnz
        return self._coordinates()[0].numel()

    def diagonal(self: Jacobian) -> Tensor:
        """Return the entries J[i…, i…], of shape ``out_shape``, where output and input have the same shape.

        Where the shapes differ, it is the diagonal of the matrix, a vector of min(rows, columns) numbers.
        Costs what is stored; a block that misses the diagonal costs nothing.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x.cumsum(0) * x)(torch.ones(3)).diagonal()
            tensor([2., 3., 4.])
        """
        if self.factors and self.out_shape == self.in_shape:
            return factored.diagonal_blocks(self, tuple(range(len(self.out_shape))))
        return index_parts.diagonal(self.blocks, self.out_shape, self.in_shape, self)

    def trace(self: Jacobian) -> Tensor:
        """Return the sum of the diagonal, which for a vector field is its divergence; costs what `diagonal` does.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(1000)).trace()
            tensor(1000.)
        """
        return self.diagonal().sum()

    def row(self: Jacobian, index: int | tuple[int, ...]) -> Tensor:
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
        if self.factors:
            first: Tensor = self.factors[0].row(index) @ factored.chained(self.factors[1:])
            return first
        return index_parts.row(self.blocks, index, self.out_shape, self.in_shape, self)

    def __getitem__(self: Jacobian, key: Any) -> Jacobian:
        """The Jacobian of ``output[key]``, for any key that indexes a tensor; structure is kept.

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
        given = key
        key, columns = scaling.split_key(key, len(self.out_shape))
        if columns:
            if scaling.split_key(columns, len(self.in_shape))[1]:
                raise IndexError(
                    f"index {given!r} does not fit an output of shape {self.out_shape} "
                    f"and an input of shape {self.in_shape}"
                )
            return self[key].mT[columns].mT
        if self.factors:
            return factored.chained([self.factors[0][key], *self.factors[1:]])
        shape, blocks = index_parts.select(self.blocks, key, self.out_shape, self.in_shape, self)
        return self._new(shape, self.in_shape, tuple(blocks))

    def block_diagonal(self: Jacobian) -> Tensor:
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
        if not (self.out_shape and self.in_shape and self.out_shape[0] == self.in_shape[0]):
            raise ValueError(
                "block_diagonal: output and input must begin with the same dim, the batch; got shapes "
                f"{self.out_shape} and {self.in_shape}"
            )
        if self.factors:
            return factored.diagonal_blocks(self, (0,))
        return index_parts.diagonal_blocks(self.blocks, (0,), self.out_shape, self.in_shape, self)

    def pattern(self: Jacobian, layout: torch.layout = torch.sparse_coo) -> Tensor:
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
        matrix: Tensor = sparse.pattern_tensor(self.blocks, self.out_shape, self.in_shape, self, layout)
        return matrix

    def _coordinates(self: Jacobian) -> tuple[Tensor, Tensor]:
        """Return sorted positions in the flattened matrix and the values there."""
        found = sparse.assemble(self.blocks, self.out_shape, self.in_shape, self)
        return found.row().long() * max(prod(self.in_shape), 1) + found.column, found.values
