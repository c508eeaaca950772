"""A Jacobian with index tables as one matrix by rows, for products with vectors: made once that pays.

Through tables a product reads and writes at each entry by itself, some thirty times slower than a matrix by rows does.
To assemble the matrix takes about as long as one such product, less where its pattern is kept.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from .._blocks.block import Block, entries, stored
from .._blocks.maps import Gather
from .._blocks.normal import normal
from .._blocks.pattern import Pattern
from .._blocks.pattern_cache import pattern_of
from .._blocks.tracing import inside_functorch, is_plain, is_tracing
from .csr import csr_tensor
from .forms import Form, kept
from .sparse import cut

#: What SciPy's matrices, and torch's sparse ones, multiply.
KNOWN = (torch.float32, torch.float64)

#: Blocks may name many more entries than they hold, as a sum does; a matrix with each of them is no gain then.
MOST_NAMED = 4


def consolidated(form: Form) -> Consolidated:
    """Return the products by one matrix, kept with the form."""
    return kept(form, "products", lambda: Consolidated(form))


class Consolidated:
    """Products of a form and its transpose by one matrix, once there is one; the form, which keeps it, is given."""

    def __init__(self, form: Form) -> None:
        self._products = 0
        self._matrix: Any = None
        self._assembled: tuple[Pattern, Tensor] | None = None
        tables = any(type(map_) is Gather for block in form.blocks for map_ in block.out + block.wrt)
        self._pays = tables and _has_few_names(form)

    @property
    def told(self) -> str:
        """The way that products go, for `Jacobian.explain`; empty where they go through the blocks."""
        if self._matrix is None:
            return ""
        nnz = self._matrix.nnz if not isinstance(self._matrix, Tensor) else self._matrix._nnz()
        return f"products: by one matrix of {nnz:,} nonzeros, made at product {self._products}: blocks hold tables"

    def for_many(self, form: Form) -> Any:
        """SciPy's matrix, made now for an iterative solver, which asks for many products; None where it has none."""
        if (
            not self._pays
            or form.device.type != "cpu"
            or form.dtype not in KNOWN
            or inside_functorch()
            or is_tracing()
        ):
            return None
        if self._matrix is None:
            self._products += 1
            self._matrix = _matrix(form, *self._values(form))
        return self._matrix

    def times(self, form: Form, vectors: Tensor, transposed: bool) -> Tensor | None:
        """Return the product with flattened vectors in columns; None where it must go through the blocks."""
        if not self._pays or not is_plain(vectors) or vectors.dtype not in KNOWN:
            return None
        if any(isinstance(block.value, Tensor) and not is_plain(block.value) for block in form.blocks):
            return None
        if self._matrix is None:
            self._products += 1
            if self._products == 1 and self._assembled is None:
                return None
            self._matrix = _matrix(form, *self._values(form))
        if isinstance(self._matrix, Tensor):
            return (self._matrix.mT if transposed else self._matrix) @ vectors
        matrix = self._matrix.T if transposed else self._matrix
        return torch.from_numpy(matrix @ vectors.detach().numpy())

    def gram(self, form: Form, weight: Tensor | None) -> list[Block] | None:
        """Return the blocks of JᵀWJ by the values of the matrix, which products use too; None where it does not pay."""
        pattern = pattern_of(form.blocks, form.out_shape, form.in_shape, form.device)
        return None if pattern is None else normal(pattern, lambda: self._values(form, pattern)[1], weight)

    def _values(self, form: Form, pattern: Pattern | None = None) -> tuple[Pattern, Tensor]:
        """Return the pattern, if it is not given, and the values of its nonzeros, filled once."""
        if self._assembled is None:
            blocks = [block._replace(value=cut(block.value)) for block in form.blocks]
            pattern = pattern or pattern_of(blocks, form.out_shape, form.in_shape, form.device)
            assert pattern is not None
            self._assembled = pattern, pattern.fill(blocks, form)
        return self._assembled


def _has_few_names(form: Form) -> bool:
    rows, columns = prod(form.out_shape), prod(form.in_shape)
    named, held = (sum(map(count, form.blocks)) for count in (entries, stored))
    return named <= MOST_NAMED * (held + rows + columns)


def _matrix(form: Form, pattern: Pattern, values: Tensor) -> Any:
    """SciPy's matrix by rows on the CPU, whose products with its transpose are fast too (torch 2.13), else torch's."""
    size = (pattern.rows, pattern.columns)
    if form.device.type == "cpu":
        try:
            from scipy.sparse import csr_array
        except ImportError:
            pass
        else:
            return csr_array((values.numpy(), pattern.index.numpy(), pattern.begin.numpy()), shape=size)
    return csr_tensor(pattern.begin, pattern.index, values, size)
