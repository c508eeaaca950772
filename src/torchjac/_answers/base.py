"""A form of an answer with the report of how it was found: the beginning of `Jacobian`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from .._accumulate.report import Report
from .._blocks.block import Block
from .forms import Form, ProductOfFactors

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """A form, its shapes and its report.

    Attributes:
        form: a sum of blocks, a product of factors, or the sum of one of each.
        report: how it was found, node by node.
    """

    form: Form
    report: Report = field(default_factory=Report)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.form.out_shape

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self.form.in_shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the input."""
        return self.form.dtype

    @property
    def device(self) -> torch.device:
        """Device of the input."""
        return self.form.device

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The terms of the sum; those of a product (see `factors`) are multiplied out where they are first read."""
        return self.form.blocks

    @property
    def shape(self) -> torch.Size:
        """``output.shape + input.shape``."""
        return self.form.shape

    @property
    def stored(self) -> int:
        """The numbers that the blocks hold, index tensors included; of a product, those of its factors."""
        return self.form.stored

    @property
    def factors(self) -> tuple[Self, ...]:
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
        form = self.form
        return tuple(map(self._with, form.factors)) if isinstance(form, ProductOfFactors) else ()

    def _with(self, form: Form) -> Self:
        """Return another form with the same report."""
        return type(self)(form, self.report)
