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
    sides = [
        tuple(
            [
                labels.setdefault(letter, bare(Label(size)))
                for letter, size in zip(words.split(), shape, strict=True)
            ]
        )
        for words, shape in ((out, node.shape), (wrt, node.into(k).shape))
    ]
    values = values if scale == 1 else values * scale
    return Local(k, Block(values.conj_physical() if values.is_complex() else values, (entry,), *sides))
