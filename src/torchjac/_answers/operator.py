"""The Jacobian as an operator: its blocks and what they hold; what can be asked of them has a room each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from .._accumulate.report import Report
from .._blocks.block import Block, stored
from .._blocks.lazy import lazy
from . import arithmetic, factored, products
from .algebra import Algebra
from .consolidate import Consolidated
from .conversion import Conversion
from .display import Display
from .entries import Entries
from .factored import Chain
from .low_rank_update import Plus
from .matrix_kind import Kind, kind_of, solved_as
from .systems import Systems


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian(Algebra, Entries, Systems, Conversion, Display):
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

    @property
    def kind(self) -> str:
        """What kind of matrix it is, by the maps of the blocks; no value is looked at, and no size.

        - "diagonal": every entry stands on the diagonal.
        - "block-diagonal": output and input agree along some dims, as a batch does.
        - "low-rank": a product through fewer numbers than it has rows and columns, so that it is singular.
        - "low-rank plus": one of low rank, as a product is, beside one of any other kind that was added to it.
        - "sparse": none of these, and some entries are known to be zero.
        - "dense": anything else.

        How a system with it is solved is another question, and `solved_as` answers it.

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
    def solved_as(self) -> str:
        """What `solve`, `slogdet` and `lstsq` take the matrix for: its `kind`, or what is faster at its size.

        A "sparse" one of at most 64 × 64 entries, or with more than one entry in four, is solved as "dense"; a
        "block-diagonal" one whose blocks are large and mostly zeros as "sparse".

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> ring = lambda x: 4 * x + x.roll(1) + x.roll(-1)
            >>> [(J.kind, J.solved_as) for J in map(jacobian(ring), (torch.zeros(9), torch.zeros(999)))]
            [('sparse', 'dense'), ('sparse', 'sparse')]
        """
        return self._solved_as.name

    @lazy
    def _kind(self) -> Kind:
        if self._terms:
            return Kind("low-rank plus")
        if factored.rank_bound(self) < min(self._matrix_shape()):
            return Kind("low-rank")
        return kind_of(self.blocks, self.out_shape, self.in_shape)

    @lazy
    def _solved_as(self) -> Kind:
        if self._kind.name.startswith("low-rank"):
            return self._kind
        return solved_as(self._kind, self.blocks, self.out_shape, self.in_shape)

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

    def _matrix_shape(self) -> tuple[int, int]:
        return prod(self.out_shape), prod(self.in_shape)

    def _each(self, change: Callable[[Block], Block], like: Any) -> Jacobian:
        """Something done to each block; of a product, to those of its factors."""
        if self.factors:
            return factored.chained([factor._each(change, like) for factor in self.factors])
        if self._terms:
            rest, low = (term._each(change, like) for term in self._terms)
            return arithmetic.added(rest, low)
        blocks = tuple(map(change, self.blocks))
        return replace(self, dtype=like.dtype, device=like.device, blocks=blocks)

    def _new(
        self, out_shape: tuple[int, ...], in_shape: tuple[int, ...], blocks: Sequence[Block]
    ) -> Jacobian:
        return replace(self, out_shape=out_shape, in_shape=in_shape, blocks=blocks)
