"""The Jacobian as an operator: its blocks, what they hold, and everything that can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy
import torch
from torch import Tensor

from .._accumulate.report import Report
from .._blocks.block import Block, entries, fitted, stored, valued
from .._blocks.coordinates import covers_once
from .._blocks.domain import entries_inside, inside
from .._blocks.lazy import lazy
from .._blocks.pattern import pattern_of
from . import arithmetic, chain, lstsq, parts, picture, products, scaling, solve, sparse
from .chain import Chain
from .consolidate import Consolidated
from .kind import Kind, is_symmetric, kind_of
from .linear_operator import linear_operator, on_array
from .plus import Plus
from .solve import SlogDet
from .solvers.system import System
from .written import written

#: Up to this many entries are counted for `repr`; beyond, it tells a bound instead.
CHEAP = 10_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian:
    """∂output/∂input of shape ``output.shape + input.shape``, kept as the sum of its blocks.

    As a matrix it has a row for each entry of the output and a column for each of the input, both in
    row-major order. Nothing is written out until it is asked for; "stored" in a cost below means `stored`, and
    "named" the number of entries that the blocks name (`nnz`, where no two blocks name the same one). What is
    returned as a tensor is differentiable through the values of the blocks, unless said otherwise.

    Attributes:
        out_shape: shape of the output.
        in_shape: shape of the input.
        dtype: dtype of the input.
        device: device of the input.
        blocks: the terms of the sum; each holds a small value tensor and the maps that say where it stands.
            Of a product (see `factors`) they are multiplied out where they are looked at.
        report: how they were found, node by node.

    Example:
        >>> import torch
        >>> from torchjac import jacobian
        >>> x = torch.arange(1.0, 5.0)
        >>> J = jacobian(lambda x: x[1:] * x[:-1])(x)
        >>> J
        Jacobian(shape=(3,)+(4,), nnz=6 (0.5 of 12), blocks=2, stored=6, dtype=torch.float32)
        >>> J @ torch.ones(4)
        tensor([3., 5., 7.])
        >>> J[1:].to_dense()
        tensor([[0., 3., 2., 0.],
                [0., 0., 4., 3.]])
    """

    out_shape: tuple[int, ...]
    in_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    blocks: Sequence[Block]
    report: Report = field(default_factory=Report)

    __array_ufunc__ = None  # NumPy leaves `array @ J` to us

    @property
    def shape(self) -> torch.Size:
        """``output.shape + input.shape``."""
        return torch.Size((*self.out_shape, *self.in_shape))

    @property
    def stored(self) -> int:
        """How many numbers the blocks hold, index tensors included; of a product, how many its factors do."""
        if self._terms:
            return sum(term.stored for term in self._terms)
        return sum(stored(block) for factor in self.factors or (self,) for block in factor.blocks)

    @property
    def factors(self) -> tuple[Jacobian, ...]:
        """The Jacobians that this one is the product of, the output's first; empty where it is kept as blocks.

        Where everything goes through a few numbers, J = F₁ F₂ is kept so if that holds far less. Products with
        vectors, `mT`, `row`, ``J[rows]``, `gram`, and `diagonal` and `block_diagonal` of like shapes go through
        the factors; anything else multiplies them out.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> narrow, wide = torch.rand(5, 2000), torch.rand(2000, 5)
            >>> J = jacobian(lambda x: wide @ torch.tanh(narrow @ x))(torch.zeros(2000))
            >>> J
            Jacobian(shape=(2000,)+(2000,), nnz=4,000,000 (1 of 4,000,000), factors=2, stored=20,000, ...)
            >>> [factor.shape for factor in J.factors]
            [torch.Size([2000, 5]), torch.Size([5, 2000])]
        """
        return self.blocks.factors if isinstance(self.blocks, Chain) else ()

    @lazy
    def nnz(self) -> int:
        """How many entries are not zero by structure: no value is looked at.

        Raises:
            RuntimeError: on the meta device where several blocks may name the same entry, which tables tell.
        """
        if self.factors and chain.is_full(self):
            return self.shape.numel()
        if len(self.blocks) == 1 and covers_once(self.blocks[0], self.shape):
            return entries_inside(self.blocks[0])
        pattern = pattern_of(inside(self.blocks, self.device), self.out_shape, self.in_shape, self.device)
        if pattern is not None:
            return pattern.nnz
        return self._coordinates()[0].numel()

    @property
    def kind(self) -> str:
        """What `solve` and `slogdet` take the matrix for, by the maps of the blocks; no value is looked at.

        - "diagonal": every entry stands on the diagonal.
        - "block-diagonal": output and input agree along some dims, as a batch does, and what is left is small
          or mostly full.
        - "low-rank": a product through fewer numbers than it has rows and columns, so that it is singular.
        - "low-rank plus": one of low rank, as a product is, beside one of any other kind that was added to it.
        - "sparse": none of these, larger than 64 × 64, and at most one entry in four is named.
        - "dense": anything else.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(5)).kind
            'diagonal'
            >>> jacobian(lambda x: x.softmax(-1))(torch.zeros(9, 5)).kind
            'block-diagonal'
        """
        return self._kind.name

    @property
    def mT(self) -> Jacobian:
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
            return chain.chained([factor.mT for factor in reversed(self.factors)])
        if self._terms:
            return self._new(self.in_shape, self.out_shape, Plus(*(term.mT for term in self._terms)))
        found = self._parent
        if found is None:
            found = self._new(self.in_shape, self.out_shape, products.transposed(self.blocks))
            vars(found)["_transpose_of"] = self
        return found

    @property
    def T(self) -> Jacobian:
        """The transpose, as `mT`."""
        return self.mT

    def to(self, *args: Any, **kwargs: Any) -> Jacobian:
        """The same in another dtype or on another device, which are given as to `torch.Tensor.to`.

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
        return self._each(lambda block: fitted(block, like.dtype, like.device), like)

    def cpu(self) -> Jacobian:
        """The same on the CPU."""
        return self.to("cpu")

    def detach(self) -> Jacobian:
        """The same without the graph of its values."""
        return self._each(lambda block: valued(block, sparse.cut(block.value)), self)

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
        if isinstance(other, Jacobian):
            if other.out_shape != self.in_shape or other.dtype != self.dtype or other.device != self.device:
                raise ValueError(
                    f"J @ K: the outputs of K must be the inputs of J, {self.in_shape} in {self.dtype} on "
                    f"{self.device}; got {other.out_shape} in {other.dtype} on {other.device}"
                )
            if self.factors or other.factors:
                return chain.chained([self, other])
            return chain.multiplied(self, other)
        if isinstance(other, numpy.ndarray):
            return on_array(self, other, lambda v: self @ v, self.in_shape)
        return self._times(products.check_operand(other, self.in_shape, self, "J @ v: v"))

    def __rmatmul__(self, other: Any) -> Any:
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

    def __add__(self, other: Any) -> Jacobian:
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

    def __radd__(self, other: Any) -> Jacobian:
        """``0 + J``, with which `sum` of several begins."""
        return self if isinstance(other, int) and other == 0 else self + other

    def __sub__(self, other: Any) -> Jacobian:
        """``J - K``, as `__add__`."""
        return arithmetic.added(self, -self._like(other, "J - K"))

    def __rsub__(self, other: Any) -> Jacobian:
        """``K - J``, refused as ``J - K`` is where K is no Jacobian."""
        return -self + self._like(other, "K - J")

    def __neg__(self) -> Jacobian:
        """``-J``."""
        return arithmetic.scaled(self, -1.0)

    def __mul__(self, by: Any) -> Jacobian:
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

    def __rmul__(self, by: Any) -> Jacobian:
        """``c * J``, as `__mul__`."""
        if isinstance(by, Tensor) and by.dim():
            return scaling.scaled_columns(self, by, "c * J: c, which scales columns,")
        return self.__mul__(by)

    def __truediv__(self, number: Any) -> Jacobian:
        """``J / c`` and ``J / r``, as `__mul__`."""
        if isinstance(number, Tensor) and number.dim():
            return scaling.scaled_rows(self, number.reciprocal(), "J / r: r, which scales rows,")
        return arithmetic.scaled(self, arithmetic.inverse(arithmetic.check_number(number, self, "J / c: c")))

    def add_diagonal(self, values: Tensor | float) -> Jacobian:
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

    def matmat(self, vectors: Any) -> Any:
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

    def gram(self, weight: Tensor | Jacobian | None = None) -> Jacobian:
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
        if isinstance(weight, Jacobian) or wide:
            weighted: Jacobian = self.mT @ (products.weighting(weight, self) @ self)
            return weighted
        if weight is not None:
            weight = products.check_operand(weight, self.out_shape, self, "gram: weight")
        if self.factors:
            first, *rest = self.factors
            return chain.chained([*(factor.mT for factor in reversed(rest)), first.gram(weight), *rest])
        found = products.gram(self, weight)
        return self._new(self.in_shape, self.in_shape, tuple(found))

    def diagonal(self) -> Tensor:
        """The entries J[i…, i…], of shape ``out_shape``, where output and input have the same shape.

        Where the shapes differ, it is the diagonal of the matrix, a vector of min(rows, columns) numbers.
        Costs what is stored; a block that misses the diagonal costs nothing.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x.cumsum(0) * x)(torch.ones(3)).diagonal()
            tensor([2., 3., 4.])
        """
        if self.factors and self.out_shape == self.in_shape:
            return chain.diagonal_blocks(self, tuple(range(len(self.out_shape))))
        return parts.diagonal(self.blocks, self.out_shape, self.in_shape, self)

    def trace(self) -> Tensor:
        """The sum of the diagonal, which for a vector field is its divergence; costs what `diagonal` does.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(1000)).trace()
            tensor(1000.)
        """
        return self.diagonal().sum()

    def row(self, index: int | tuple[int, ...]) -> Tensor:
        """The gradient of one entry of the output, of shape ``in_shape``.

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
            first: Tensor = self.factors[0].row(index) @ chain.chained(self.factors[1:])
            return first
        return parts.row(self.blocks, index, self.out_shape, self.in_shape, self)

    def __getitem__(self, key: Any) -> Jacobian:
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
            return chain.chained([self.factors[0][key], *self.factors[1:]])
        shape, blocks = parts.select(self.blocks, key, self.out_shape, self.in_shape, self)
        return self._new(shape, self.in_shape, tuple(blocks))

    def block_diagonal(self) -> Tensor:
        """The blocks on the diagonal of the first dim: D[b, o…, i…] = J[b, o…; b, i…].

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
            return chain.diagonal_blocks(self, (0,))
        return parts.diagonal_blocks(self.blocks, (0,), self.out_shape, self.in_shape, self)

    def solve(self, right: Any, solver: Any = None, preconditioner: Any = None) -> Any:
        """X with J X = right, of shape ``in_shape`` for one right side and ``in_shape + (k,)`` for k of them.

        `kind` tells the way. "diagonal" divides; "block-diagonal" solves its blocks by `torch.linalg.solve`; "dense"
        writes it out and uses `torch.linalg.solve`; "low-rank plus" goes by Woodbury's formula. A "sparse" one is
        factorised on the CPU by the first way that its pattern allows, which `explain` then tells:

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
            ImportError: if the kind is "sparse" and SciPy is not installed.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> J = jacobian(lambda x: 4 * x + x.roll(1) + x.roll(-1))(torch.zeros(1000, dtype=torch.float64))
            >>> J.kind, J.solve(torch.full((1000,), 6.0, dtype=torch.float64)).sum().round(decimals=9)
            ('sparse', tensor(1000., dtype=torch.float64))
        """
        solve.check_square(self, "solve")
        if isinstance(right, numpy.ndarray):
            return on_array(self, right, lambda b: self.solve(b, solver, preconditioner), self.out_shape)
        batch = isinstance(right, Tensor) and right.dim() == len(self.out_shape) + 1
        right = products.check_operand(right, self.out_shape, self, "solve: b", batch=batch)
        if solver is None and preconditioner is None:
            return solve.solve(self, right)
        return solve.solve_by(self, right, solver, preconditioner)

    def lstsq(self, right: Any) -> Any:
        """The x with the least |J x − b|, and of several the shortest; J has full rank.

        By QR where J is dense or block-diagonal, else by a sparse system that has J and Jᵀ in it: the product JᵀJ,
        which squares the condition, is not formed. Differentiable as `solve` is.

        Args:
            right: shape ``out_shape`` or ``out_shape + (k,)``; an array of NumPy gives one.

        Raises:
            TypeError: if ``right`` is no tensor.
            ValueError: if it does not fit.
            torch.linalg.LinAlgError: if J has not full rank and is sparse.

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
        return lstsq.lstsq(self, products.check_operand(right, self.out_shape, self, "lstsq: b", batch=batch))

    def slogdet(self) -> SlogDet:
        """The sign of det J and log |det J|, as `torch.linalg.slogdet` of the matrix gives them.

        `kind` tells the way, as for `solve`; a sparse triangular matrix needs no factors. Differentiable; of
        a sparse matrix that is not triangular once, at the cost of a solve for each column.

        Raises:
            ValueError: if there are not as many outputs as inputs.
            ImportError: if the kind is "sparse" and SciPy is not installed.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.exp)(torch.full((1000,), -0.5)).slogdet()
            SlogDet(sign=tensor(1.), logabsdet=tensor(-500.))
        """
        return solve.slogdet(self)

    def to_dense(self) -> Tensor:
        """The Jacobian as a dense tensor; costs the writing of ``shape.numel()`` numbers."""
        return written(self.blocks, self.out_shape, self.in_shape, self)

    def to_sparse(
        self,
        layout: torch.layout = torch.sparse_coo,
        *,
        index_dtype: torch.dtype = torch.int64,
        triangle: str | None = None,
    ) -> Tensor:
        """The Jacobian as a sparse matrix of shape (output.numel(), input.numel()).

        Entries that are zero by structure are left out, duplicates are summed, and indices are sorted. Where they
        stand follows from the maps of the blocks without a sort; where blocks hold tables it takes a counting sort,
        once for all Jacobians with the same ones.

        Args:
            layout: ``torch.sparse_coo``, ``sparse_csr`` or ``sparse_csc``.
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
        ends = (self.blocks, self.out_shape, self.in_shape, self)
        matrix: Tensor = sparse.sparse_tensor(*ends, layout, "to_sparse", index_dtype, triangle)
        return matrix

    def to_scipy(self, format: str = "csr") -> Any:
        """The Jacobian as a SciPy sparse array, its values copied: gradients end here.

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
        return sparse.scipy_array(self.blocks, self.out_shape, self.in_shape, self, format)

    def as_linear_operator(self) -> Any:
        """SciPy's `LinearOperator` of shape (output.numel(), input.numel()), for its iterative solvers.

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
        return linear_operator(self)

    def to_bsr(self) -> Tensor:
        """A block-diagonal Jacobian in torch's ``sparse_bsr`` layout: a block for each sample of a batch.

        The matrix has shape (B·m, B·n), with blocks as `block_diagonal` gives them. Costs B·m·n numbers.

        Raises:
            ValueError: if output and input do not begin with the same dim, if they disagree along it in any
                block, or if the blocks have no entries.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(lambda x: x.cumsum(-1))(torch.zeros(3, 2)).to_bsr().values().shape
            torch.Size([3, 2, 2])
        """
        blocks = self.block_diagonal()
        if not sparse.is_block_diagonal(self.blocks):
            raise ValueError(
                "to_bsr: some entries stand between different positions of the first dim, so the Jacobian is "
                "not block-diagonal; use to_sparse"
            )
        m, n = prod(self.out_shape[1:]), prod(self.in_shape[1:])
        if m == 0 or n == 0:
            raise ValueError(f"to_bsr: blocks of {m} × {n} have no entries, which sparse_bsr cannot hold")
        return sparse.bsr_tensor(blocks.reshape(self.out_shape[0], m, n))

    def pattern(self, layout: torch.layout = torch.sparse_coo) -> Tensor:
        """Where entries stand, as a boolean sparse matrix of shape (output.numel(), input.numel()).

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

    def explain(self) -> Report:
        """How the blocks were found, node by node, printed as a table, and how systems and products were done.

        It is ``report`` with what became of this Jacobian since.
        """
        owner = self if self._parent is None else self._parent
        kept = [vars(owner).get(name) for name in ("_system", "_consolidated")]
        told = [each.told for each in (*kept, *vars(owner).get("_systems", {}).values()) if each is not None]
        return replace(self.report, answers=tuple(filter(None, told)))

    def spy(self, ax: Any = None) -> Any:
        """Draw where entries stand on matplotlib axes (new ones if none are given) and return the axes.

        Up to 500 rows and columns each cell is one entry; beyond, a cell is a bin, darker where it is fuller.
        Costs a sort of the entries named.
        """
        return picture.spy(self, ax)

    def __repr__(self) -> str:
        """Shape, structure and size at a glance."""
        kept = "factors" if self.factors else "terms" if self._terms else "blocks"
        terms = f"{kept}={len(self.factors or self._terms or self.blocks)}"
        return (
            f"Jacobian(shape={tuple(self.out_shape)}+{tuple(self.in_shape)}, nnz={self._nnz_in_words()}, "
            f"{terms}, stored={self.stored:,}, dtype={self.dtype})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: a table, and the pattern where it is cheap to draw."""
        return picture.html(self)

    def _nnz_in_words(self) -> str:
        size = self.shape.numel()
        if self._terms:
            return f"at most {size:,}"
        if self.factors and not chain.is_full(self):
            return f"at most {chain.most_entries(self):,}"
        if not self.factors and not self._is_cheap():
            return f"at most {min(size, sum(map(entries, self.blocks))):,}"
        return f"{self.nnz:,}" + (f" ({self.nnz / size:.2g} of {size:,})" if size else "")

    def _is_cheap(self) -> bool:
        """Whether the entries can be counted, and are few enough to be where nobody asked for a count."""
        if self.device.type == "meta" or self.factors or self._terms:
            return False
        return sum(map(entries, self.blocks)) <= CHEAP

    @lazy
    def _kind(self) -> Kind:
        if self._terms:
            return Kind("low-rank plus")
        if chain.rank_bound(self) < min(self._matrix_shape()):
            return Kind("low-rank")
        return kind_of(self.blocks, self.out_shape, self.in_shape)

    @lazy
    def _single(self) -> Jacobian:
        """The same in float32, kept with its factors."""
        if self._parent is not None:
            return self._parent._single.mT
        blocks = tuple([fitted(block, torch.float32, self.device) for block in self.blocks])
        return replace(self, dtype=torch.float32, blocks=blocks)

    @lazy
    def _system(self) -> System:
        found = sparse.assemble(self.blocks, self.out_shape, self.in_shape, self)
        return System(found, symmetric=is_symmetric(self.blocks))

    @lazy
    def _systems(self) -> dict[Any, System]:
        """By the solvers that were named."""
        return {}

    @property
    def _terms(self) -> tuple[Jacobian, ...]:
        """The Jacobians that this one is the sum of, where it is kept so: one of any structure, and one of low rank."""
        return self.blocks.terms if isinstance(self.blocks, Plus) else ()

    def _times(self, vectors: Tensor) -> Tensor:
        if self._terms:
            rest, low = (term._times(vectors) for term in self._terms)
            return rest + low
        if self.factors:
            for factor in reversed(self.factors):
                vectors = factor._times(vectors)
            return vectors
        tail = tuple(vectors.shape[len(self.in_shape) :])
        flat = vectors.reshape(prod(self.in_shape), *tail)
        whole = (
            self._parent._consolidated.times(flat, transposed=True)
            if self._parent is not None
            else self._consolidated.times(flat, transposed=False)
        )
        if whole is not None:
            return whole.reshape((*self.out_shape, *tail))
        return products.times(self.blocks, vectors, self.out_shape, self.in_shape, self)

    @lazy
    def _consolidated(self) -> Consolidated:
        return Consolidated(self)

    def __getstate__(self) -> dict[str, Any]:
        """Without the factors of solvers that were named, which are made again."""
        return {name: kept for name, kept in vars(self).items() if name != "_systems"}

    @property
    def _parent(self) -> Jacobian | None:
        """The Jacobian that this one is the transpose of: they share their matrix and its factors."""
        return vars(self).get("_transpose_of")

    def _coordinates(self) -> tuple[Tensor, Tensor]:
        """Sorted positions in the flattened matrix and the values there."""
        found = sparse.assemble(self.blocks, self.out_shape, self.in_shape, self)
        return found.row().long() * max(prod(self.in_shape), 1) + found.column, found.values

    def _like(self, other: Any, what: str) -> Jacobian:
        """Another Jacobian that has this one's shapes, dtype and device."""
        if not isinstance(other, Jacobian):
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

    def __array__(self, *_: Any, **__: Any) -> Any:
        """A Jacobian is no array: NumPy would make one of a single object.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a Jacobian is not turned into an array by itself; to_dense().numpy() writes all entries, to_scipy() those "
            "that are named"
        )

    def _matrix_shape(self) -> tuple[int, int]:
        return prod(self.out_shape), prod(self.in_shape)

    def _each(self, change: Callable[[Block], Block], like: Any) -> Jacobian:
        """Something done to each block; of a product, to those of its factors."""
        if self.factors:
            return chain.chained([factor._each(change, like) for factor in self.factors])
        if self._terms:
            rest, low = (term._each(change, like) for term in self._terms)
            return arithmetic.added(rest, low)
        blocks = tuple(map(change, self.blocks))
        return replace(self, dtype=like.dtype, device=like.device, blocks=blocks)

    def _new(
        self, out_shape: tuple[int, ...], in_shape: tuple[int, ...], blocks: Sequence[Block]
    ) -> Jacobian:
        return replace(self, out_shape=out_shape, in_shape=in_shape, blocks=blocks)
