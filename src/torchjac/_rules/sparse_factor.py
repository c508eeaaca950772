"""Products with a constant sparse matrix: its entries are the entries of the local Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from .._blocks.block import Block
from .._blocks.maps import Gather, Label, Map, bare
from .._capture.tape import Node
from .registry import Local


def entries_local(node: Node, k: int, out: str, wrt: str, factor: Tensor, scale: complex, on: str) -> Local:
    """Return the local Jacobian of a product with a sparse factor, spelled as `spell.local` does.

    For out[i,k] = Σⱼ S[i,j] b[j,k] with entries S[row[e], column[e]] = v[e]:

    ∂out[i,k]/∂b[j,k′] = Σₑ v[e] δ[i,row[e]] δ[j,column[e]] δ[k,k′]
    """
    if factor.layout is not torch.sparse_coo:
        factor = factor.to_sparse_coo()
    factor = factor.coalesce()
    values = factor.values()
    node.borrowed.append(values)  # which may be the matrix's own
    entry = Label(values.shape[0])
    labels: dict[str, Map] = {
        letter: Gather(index, (entry,)) for letter, index in zip(on.split(), factor.indices(), strict=True)
    }
    sides = []
    for words, shape in ((out, node.shape), (wrt, node.into(k).shape)):
        dims = zip(words.split(), shape, strict=True)
        sides.append(tuple([labels.setdefault(letter, bare(Label(size))) for letter, size in dims]))
    return Local(k, Block(scaled(values, scale), (entry,), *sides))


def scaled(value: Tensor, factor: complex) -> Tensor:
    """Return a multiple of a factor of a product as its local Jacobian holds it: conjugate."""
    value = value if factor == 1 else value * factor
    return value.conj_physical() if value.is_complex() else value
