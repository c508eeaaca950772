"""Complex numbers put together and taken apart: the factors are 1 and ±i.

The cotangent of z = a + ib is the complex number g with dout = Re(ḡ dz), so that of a is Re g and that of b
is Im g = Re(−i g). The walk keeps the real part where an input is real.
"""

from __future__ import annotations

import torch

from .._blocks.block import Block
from .._blocks.maps import bare, constant
from .._capture.tape import Node
from .einsum_notation import broadcast, new_labels
from .registry import Local, rule


def _factors(node: Node, sign: int) -> tuple[float | torch.Tensor, ...]:
    """Return 1 and ±i."""
    meta = node.outputs[0]
    dtype = meta.dtype if meta.dtype.is_complex else node.into(0).dtype
    return 1.0, torch.tensor(sign * 1j, dtype=dtype, device=meta.device)


@rule("ComplexBackward0", any_dtype=True)
def complex_(node: Node) -> list[Local]:
    """Complex: out = a + i b, the cotangents of a and b are Re g and Re(−i g)."""
    over = new_labels(node.shape)
    out = tuple(map(bare, over))
    return [
        Local(k, Block(factor, (), out, broadcast(over, node.into(k).shape)))
        for k, factor in enumerate(_factors(node, -1))
        if node.needs(k)
    ]


@rule("ViewAsComplexBackward0", any_dtype=True)
def view_as_complex(node: Node) -> list[Local]:
    """Pairs as complex numbers: out[…] = x[…, 0] + i x[…, 1]."""
    out = tuple(map(bare, new_labels(node.shape)))
    return [Local(0, Block(f, (), out, (*out, constant(k)))) for k, f in enumerate(_factors(node, -1))]


@rule("ViewAsRealBackward0", any_dtype=True)
def view_as_real(node: Node) -> list[Local]:
    """Complex numbers as pairs: out[…, 0] = Re z[…] and out[…, 1] = Im z[…], so g = g₀ + i g₁."""
    wrt = tuple(map(bare, new_labels(node.shape[:-1])))
    return [Local(0, Block(f, (), (*wrt, constant(k)), wrt)) for k, f in enumerate(_factors(node, 1))]
