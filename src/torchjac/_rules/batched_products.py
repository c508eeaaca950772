"""Formulas that take many cotangents at once through products of matrices and through convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from .._capture.tape import Node
from .batched_formulas import OF_SOME, Results, formula
from .conv_input import image_cotangents, input_cotangent
from .matmul import trilinear_factors
from .products_of_rows import times


@formula("MmBackward0", "BmmBackward0")
def _product(node: Node, count: int, rows: Tensor) -> Results | None:
    return _of_factors(node, rows, 0, "self", "mat2")


#: The factors of a product that is added to something
ADDED = {"AddmmBackward0": ("mat1", "mat2"), "BaddbmmBackward0": ("batch1", "batch2")}


@formula(*ADDED)
def _product_added(node: Node, count: int, rows: Tensor) -> Results | None:
    alpha, beta = node.saved("alpha"), node.saved("beta")
    scaled = rows if alpha == 1 else rows * alpha.conjugate()
    factors = _of_factors(node, scaled, 1, *ADDED[node.name])
    return factors and [rows if beta == 1 else rows * beta.conjugate(), *factors]


def _of_factors(node: Node, rows: Tensor, k: int, left: str, right: str) -> list[Tensor | None] | None:
    """Return what goes to inputs k and k + 1, whose product was taken: only what is asked for."""
    found: list[Tensor | None] = [None, None]
    for at, name in enumerate((right, left)):
        edge = node.inputs[k + at] if node.needs(k + at) else None
        if edge is not None:
            factor = node.saved(name)
            if factor.layout is not torch.strided:
                return None
            if at == 0:
                found[at] = times(rows, factor.mH)
            elif factor.dim() == 3:
                found[at] = times(rows.mT, factor.conj()).mT
            elif edge[0].name in TURNED:  # made as the weight lies, of which this is the transpose
                found[at] = torch.matmul(rows.mT, factor.conj()).mT
            else:
                found[at] = torch.matmul(factor.mH, rows)
    return found


@formula("TrilinearBackward0")
def _three(node: Node, count: int, rows: Tensor) -> Results | None:
    """Multiply rows with the product of the two other factors, which is made once."""
    found: list[Tensor | None] = [None] * 3
    for k, others, on, own, out_dims in trilinear_factors(node):
        if not set(own) <= {*on, *out_dims}:
            return None  # summed along a dim of its own
        front = max([*out_dims, *on], default=-1) + 1
        found[k] = torch.einsum(rows, [front, *out_dims], others, on, [front, *own])
    return found


#: Nodes of a weight that is multiplied transposed, as that of a layer is
TURNED = ("TBackward0", "TransposeBackward0")


@formula("MvBackward0")
def _of_vector(node: Node, count: int, rows: Tensor) -> Results:
    return [
        rows.unsqueeze(-1) * node.saved("vec").conj() if node.needs(0) else None,
        torch.matmul(rows, node.saved("self").conj()) if node.needs(1) else None,
    ]


@formula("DotBackward0")
def _dot(node: Node, count: int, rows: Tensor) -> Results:
    return [
        rows.unsqueeze(-1) * node.saved(other).conj() if node.needs(k) else None
        for k, other in enumerate(("tensor", "self"))
    ]


@formula("ConvolutionBackward0")
def _convolution(node: Node, count: int, rows: Tensor) -> Results | None:
    if not node.needs(0) or node.needs(1):
        return None
    found = input_cotangent(node, rows)
    if found is None:
        found = image_cotangents(node, rows.flatten(0, 1)).view(count, *node.into(0).shape)
    return [found, None, rows.sum([1, *range(3, rows.dim())]) if node.needs(2) else None]


def _convolution_backward(node: Node, count: int, *cotangents: Tensor | None) -> Results | None:
    """Return what reaches the cotangent of a convolution from that of its image: the convolution of all rows."""
    rows, *others = cotangents
    if rows is None or any(other is not None for other in others) or node.needs(1) or node.needs(2):
        return None
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    geometry = [node.saved(name) for name in names]
    found = torch.convolution(rows.flatten(0, 1), node.saved("weight"), None, *geometry)
    return [found.view(count, *node.into(0).shape), None, None]


OF_SOME["ConvolutionBackwardBackward0"] = _convolution_backward
