"""Sparse tensors inside a function: which entries are stored says which count.

The rules name entries as those of the dense tensor. Through `coalesce` and `values` PyTorch's own formulas lose
second derivatives without a word (torch 2.13): a sparse cotangent carries no graph to its values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .call import call, fit
from .einsum_notation import ones
from .pointwise import diagonal_term
from .registry import Local, rule


@rule(
    "ToSparseBackward0", "ToSparseBackward1", "ToSparseCsrBackward0", "ToSparseCscBackward0",
    "ToSparseBsrBackward0", "ToSparseBscBackward0", "CoalesceBackward0",
    any_dtype=True,
)  # fmt: skip
def to_sparse(node: Node) -> list[Local]:
    """A tensor without its zeros, or with what stands at one place added: out = x."""
    return [diagonal_term(node, 0, 1.0)]


@rule("ToDenseBackward0", any_dtype=True)
def to_dense(node: Node) -> list[Local]:
    """A sparse tensor as a dense one: ∂out[i]/∂x[i′] = δ[i,i′] where x stores an entry, zero elsewhere."""
    (found,) = call(node, [ones(node)])
    if found is None:
        return []
    return [diagonal_term(node, 0, fit(found, node.into(0)).detach())._replace(selects=True)]


@rule("SparseCooTensorWithDimsAndTensorsBackward0", any_dtype=True)
def sparse_coo_tensor(node: Node) -> list[Local]:
    """A sparse tensor from values: out[at[k], …] += values[k, …]."""
    each, whole = stored(node.saved("result"))
    return [Local(0, Block(1.0, (), whole, each))]


@rule("ValuesBackward0", any_dtype=True)
def values(node: Node) -> list[Local] | None:
    """The values of a sparse tensor: out[k, …] = x[at[k], …]."""
    x = node.saved("self")
    if x.layout is not torch.sparse_coo:
        return None
    each, whole = stored(x)
    return [Local(0, Block(1.0, (), each, whole))]


def stored(x: Tensor) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Maps of the values of a sparse tensor and of the whole: each value stands at a place, its own dims follow."""
    entry = Label(x._nnz())
    rest = tuple(bare(Label(size)) for size in x.shape[x.sparse_dim() :])
    return (bare(entry), *rest), (*(Gather(at, (entry,)) for at in x._indices()), *rest)
