"""Products of matrices and vectors: identity ⊗ factor, each factor kept once.

The cotangent of a complex factor is the product with the conjugate of the other: so it is that which is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Label, bare
from .._capture.tape import Node
from .einsum_notation import local
from .pointwise import diagonal_term
from .registry import Local, rule
from .sparse_factor import entries_local, scaled

#: Of a factor its input, the spellings of out and of wrt, and that of the other factor
_Factor: TypeAlias = tuple[int, str, str, str]


def _product(
    node: Node, first: _Factor, second: _Factor, names: tuple[str, str], alpha: complex = 1.0
) -> list[Local]:
    """Return terms of a product of two factors."""
    terms = []
    for (k, out, wrt, on), other in zip((first, second), names, strict=True):
        if node.needs(k):
            factor = node.saved(other)
            if factor.layout is torch.strided:
                value, on = _as_it_lies(factor, on)
                terms.append(local(node, k, out, wrt, scaled(value, alpha), on=on))
            else:
                terms.append(entries_local(node, k, out, wrt, factor, alpha, on))
    return terms


def _as_it_lies(value: Tensor, on: str) -> tuple[Tensor, str]:
    """Return a factor and its spelling, in the order of its memory: a transposed weight is spelled transposed."""
    if value.dim() < 2:
        return value, on
    *_, above, last = value.stride()
    if last <= above:
        return value, on
    *rest, row, column = on.split()
    return value.mT, " ".join((*rest, column, row))


def _bias(node: Node, beta: float | complex) -> list[Local]:
    if not node.needs(0):
        return []
    if not isinstance(beta, complex):
        return [diagonal_term(node, 0, float(beta))]
    return [diagonal_term(node, 0, torch.tensor(beta.conjugate(), dtype=node.outputs[0].dtype, device="cpu"))]


def _added(node: Node, first: _Factor, second: _Factor, names: tuple[str, str]) -> list[Local]:
    """Return terms of β c plus α times a product."""
    return _bias(node, node.saved("beta")) + _product(node, first, second, names, node.saved("alpha"))


@rule("MmBackward0", any_dtype=True, kind="product")
def mm(node: Node) -> list[Local]:
    """Matrix product: out[i,k] = Σⱼ a[i,j] b[j,k].

    ∂out[i,k]/∂a[i′,j] = δ[i,i′] b[j,k]      b is kept once, not once per row
    ∂out[i,k]/∂b[j,k′] = δ[k,k′] a[i,j]

    Example: a (2, 3), b (3, 4): ∂out/∂a has 48 entries dense, 12 here.
    """
    return _product(node, (0, "i k", "i j", "j k"), (1, "i k", "j k", "i j"), ("mat2", "self"))


@rule("AddmmBackward0", any_dtype=True, kind="product")
def addmm(node: Node) -> list[Local]:
    """Matrix product and sum: out[i,k] = β c[i,k] + α Σⱼ a[i,j] b[j,k]."""
    return _added(node, (1, "i k", "i j", "j k"), (2, "i k", "j k", "i j"), ("mat2", "mat1"))


@rule("SparseAddmmBackward0", any_dtype=True)
def sparse_addmm(node: Node) -> list[Local] | None:
    """Product of a sparse matrix and a dense one, and sum: out[i,k] = β c[i,k] + α Σⱼ S[i,j] b[j,k]."""
    if node.needs(1):  # the gradient of a sparse matrix is sparse
        return None
    terms = _bias(node, node.saved("beta"))
    if node.needs(2):
        factor = node.saved("mat1")
        terms.append(entries_local(node, 2, "i k", "j k", factor, node.saved("alpha"), "i j"))
    return terms


@rule("BmmBackward0", any_dtype=True, kind="product")
def bmm(node: Node) -> list[Local]:
    """Batched product: out[b,i,k] = Σⱼ a[b,i,j] c[b,j,k]; the batch stays tied."""
    return _product(node, (0, "b i k", "b i j", "b j k"), (1, "b i k", "b j k", "b i j"), ("mat2", "self"))


@rule("BaddbmmBackward0", any_dtype=True, kind="product")
def baddbmm(node: Node) -> list[Local]:
    """Batched product and sum: out[b,i,k] = β d[b,i,k] + α Σⱼ a[b,i,j] c[b,j,k]."""
    return _added(node, (1, "b i k", "b i j", "b j k"), (2, "b i k", "b j k", "b i j"), ("batch2", "batch1"))


@rule("AddbmmBackward0", any_dtype=True)
def addbmm(node: Node) -> list[Local]:
    """Sum of a batch of products: out[i,k] = β d[i,k] + α Σ_b Σⱼ a[b,i,j] c[b,j,k]."""
    return _added(node, (1, "i k", "b i j", "b j k"), (2, "i k", "b j k", "b i j"), ("batch2", "batch1"))


@rule("MvBackward0", any_dtype=True, kind="product")
def mv(node: Node) -> list[Local]:
    """Matrix times vector: out[i] = Σⱼ a[i,j] x[j]."""
    return _product(node, (0, "i", "i j", "j"), (1, "i", "j", "i j"), ("vec", "self"))


@rule("AddmvBackward0", any_dtype=True, kind="product")
def addmv(node: Node) -> list[Local]:
    """Matrix times vector and sum: out[i] = β c[i] + α Σⱼ a[i,j] x[j]."""
    return _added(node, (1, "i", "i j", "j"), (2, "i", "j", "i j"), ("vec", "mat"))


@rule("DotBackward0", "VdotBackward0", any_dtype=True, kind="product")
def dot(node: Node) -> list[Local] | None:
    """Inner product: out = Σᵢ x[i] y[i]; with x conjugated it is not linear in x."""
    if node.name.startswith("V") and node.touches_complex:
        return None
    names = ("tensor", "self") if node.name.startswith("Dot") else ("other", "self")
    return _product(node, (0, "", "i", "i"), (1, "", "i", "i"), names)


@rule("AddrBackward0", any_dtype=True)
def addr(node: Node) -> list[Local]:
    """Outer product and sum: out[i,j] = β c[i,j] + α x[i] y[j]."""
    return _added(node, (1, "i j", "i", "j"), (2, "i j", "j", "i"), ("vec2", "vec1"))


@rule("TrilinearBackward0")
def trilinear(node: Node) -> list[Local]:
    """Product of three tensors, some dims summed: out[b,o] = Σᵢⱼ x[b,i] y[b,j] w[o,i,j] for `bilinear`.

    ∂out[b,o]/∂x[b′,i] = δ[b,b′] Σⱼ y[b,j] w[o,i,j]
    """
    terms = []
    for k, value, on, own, out_dims in trilinear_factors(node):
        labels = {dim: Label(size) for dim, size in zip(own, node.into(k).shape, strict=True)}
        for dim, size in zip(on, value.shape, strict=True):
            labels.setdefault(dim, Label(size))
        out, wrt = (tuple(bare(labels[dim]) for dim in dims) for dims in (out_dims, own))
        terms.append(Local(k, Block(value, tuple(labels[dim] for dim in on), out, wrt)))
    return terms


def trilinear_factors(node: Node) -> Iterator[tuple[int, Tensor, list[int], list[int], list[int]]]:
    """Yield each input of a product of three tensors with the product of the other two, as it is multiplied by.

    Its dims, those of the input and those of the output are counted among the dims of all three.
    """
    summed = set(node.saved("sumdim"))
    rank = len(node.shape) + len(summed)
    out_dims = [dim for dim in range(rank) if dim not in summed]
    own = [[dim for dim in range(rank) if dim not in node.saved(f"expand{k}")] for k in (1, 2, 3)]
    for k in range(3):
        if node.needs(k):
            a, b = (m for m in range(3) if m != k)
            on = [dim for dim in sorted({*own[a], *own[b]}) if dim in out_dims or dim in own[k]]
            left, right = (node.saved(f"i{m + 1}") for m in (a, b))
            yield k, torch.einsum(left, own[a], right, own[b], on), on, own[k], out_dims
