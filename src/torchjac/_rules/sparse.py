"""Sparse tensors inside a function: which entries are stored says which count.

The rules name entries as those of the dense tensor. Through `coalesce` and `values` PyTorch's own formulas lose
second derivatives without a word (torch 2.13): a sparse cotangent carries no graph to its values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare, substitute
from .._capture.tape import Node
from .call import call, fit
from .pointwise import diagonal_term
from .registry import Local, rule
from .spell import local, ones


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
    (stored,) = call(node, [ones(node)])
    return [diagonal_term(node, 0, fit(stored, node.into(0)))._replace(selects=True)]


@rule("SparseCooTensorWithDimsAndTensorsBackward0", any_dtype=True)
def sparse_coo_tensor(node: Node) -> list[Local]:
    """A sparse tensor from values: out[at[k], …] += values[k, …]."""
    stored, whole = _stored(node.saved("result"))
    return [Local(0, Block(1.0, (), whole, stored))]


@rule("ValuesBackward0", any_dtype=True)
def values(node: Node) -> list[Local] | None:
    """The values of a sparse tensor: out[k, …] = x[at[k], …]."""
    x = node.saved("self")
    if x.layout is not torch.sparse_coo:
        return None
    stored, whole = _stored(x)
    return [Local(0, Block(1.0, (), stored, whole))]


def _stored(x: Tensor) -> tuple[tuple[Map, ...], tuple[Map, ...]]:
    """Maps of the values of a sparse tensor and of the whole: each value stands at a place, its own dims follow."""
    entry = Label(x._nnz())
    rest = tuple(bare(Label(size)) for size in x.shape[x.sparse_dim() :])
    return (bare(entry), *rest), (*(Gather(at, (entry,)) for at in x._indices()), *rest)


def by_entries(term: Local, factor: Tensor, scale: float = 1.0) -> Local:
    """A term whose value is a sparse matrix, over its entries: they name the positions of its rows and columns.

    Example: of a matrix with n entries, n numbers and 2n positions are stored.
    """
    entries = factor.to_sparse_coo().coalesce()
    entry = Label(entries._nnz())
    by = {label: Gather(at, (entry,)) for label, at in zip(term.block.on, entries.indices(), strict=True)}
    out, wrt = (tuple([substitute(map_, by) for map_ in side]) for side in (term.block.out, term.block.wrt))
    value = entries.values()
    return term._replace(block=Block(value if scale == 1 else value * scale, (entry,), out, wrt))


@rule("SparseAddmmBackward0")
def sparse_addmm(node: Node) -> list[Local]:
    """Sparse times dense: out[i,k] = β c[i,k] + α Σⱼ a[i,j] b[j,k], over the entries (i, j) that a stores.

    ∂out[i,k]/∂b[j,k′] = δ[k,k′] α a[i,j]      ∂out[i,k]/∂a[i,j] = α b[j,k], for entries that are stored alone
    """
    alpha = node.saved("alpha") if node.needs(1) or node.needs(2) else 1.0
    terms = [diagonal_term(node, 0, float(node.saved("beta")))] if node.needs(0) else []
    if node.needs(1):
        (entry, *_), at = _stored(node.saved("mat1"))
        dense = node.saved("mat2")
        column = Label(dense.shape[1])
        value = dense[at[1].index] * alpha
        block = Block(value, (*entry.labels, column), (at[0], bare(column)), at)
        terms.append(Local(1, block))
    if node.needs(2):
        terms.append(by_entries(local(node, 2, "i k", "j k", on="i j"), node.saved("mat1"), alpha))
    return terms
