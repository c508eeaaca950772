"""The number of entries of a node's local Jacobian, by its name and shapes alone: all that a planner looks at.

An estimate. An op that is not named here is taken for one that mixes nothing (pointwise, re-indexing, sums),
one that has no rule for one that mixes everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Literal

from .._capture.tape import Node
from .conv_geometry import by_dim
from .conv_input import is_direct
from .registry import OpKind, named

#: node → which of its inputs is the left factor; the right one comes next
PRODUCTS = {
    "MmBackward0": 0, "BmmBackward0": 0, "MvBackward0": 0, "DotBackward0": 0, "VdotBackward0": 0,
    "AddmmBackward0": 1, "BaddbmmBackward0": 1, "AddmvBackward0": 1,
}  # fmt: skip


def links(node: Node, k: int) -> int:
    """Return how many entries ∂output/∂input k has.

    A product out[…, i, j] = Σ_l a[…, i, l] b[…, l, j] has Π(out) Π(a) / Π(…, i) of a, and so on for b.

    Example: a (2, 3) times b (3, 4): 24 for each. A sum over n numbers: n. A softmax of (2, 5): 50.
    """
    out, into = node.shape, node.into(k).shape
    size, inner = prod(out), prod(into)
    kind = kind_of(node.name)
    if kind == "product":
        side = k - PRODUCTS[node.name]
        if side == 0:
            return size * inner // (size // out[-1] if len(out) == len(into) else size)
        if side == 1:
            return size * inner // (size // out[-2] if len(out) > 1 else 1)
    elif kind == "convolution" and k < 2:
        return prod(_summed(node)) * _kernel_size(node)
    elif kind == "linear algebra":  # all of a matrix, for each of a batch
        return size * inner // max(prod(out[:-2]), prod(into[:-2]))
    elif kind == "mixing" and size == inner:
        return size * out[-1] if out else 1
    elif kind == "opaque":
        return size * inner
    return max(size, inner)


def windows(node: Node) -> int:
    """Return how many numbers of windows a row lays out at a convolution, for each input that it goes on to; else 0.

    PyTorch multiplies matrices whose columns are the windows: a number of them takes what one takes that is written.

    Example: a kernel of 3×3 on an image of 64×64 with 4 channels, to 8: 9 · 4 · 64² numbers, each multiplied 8 times.
    """
    if kind_of(node.name) != "convolution" or (is_direct(node) and not node.needs(1)):
        return 0
    needed = [k for k in range(2) if node.needs(k)]
    channels: int = _summed(node)[1] // node.saved("groups")
    return sum([links(node, k) for k in needed]) // channels


def _summed(node: Node) -> Sequence[int]:
    """Return the shape of that whose entries each meet a slice of the weight: the image, where it is transposed."""
    if not node.saved("transposed"):
        return node.shape
    shape: Sequence[int] = node.into(0).shape if node.needs(0) else node.saved("input").shape
    return shape


def _kernel_size(node: Node) -> int:
    """Return how many entries a slice of a convolution's weight has, without the weight, which may be packed.

    Where windows skip entries of the image it may be a little less.
    """
    if node.needs(1):
        return prod(node.into(1).shape[1:])
    (_, into, *image), (_, out, *found) = node.into(0).shape, node.shape
    moves = by_dim(node, len(image), "stride", "dilation", "padding", "output_padding")
    transposed = node.saved("transposed")
    size: int = (out if transposed else into) // node.saved("groups")
    for before, after, step, dilate, margin, more in zip(image, found, *moves, strict=True):
        coarse, fine = (before, after - more) if transposed else (after, before)
        size *= (fine + 2 * margin - (coarse - 1) * step - 1) // dilate + 1
    return size


@lru_cache(maxsize=1024)
def mixes_nothing(name: str) -> bool:
    """Return whether a node of this name has as many links as the larger of its output and input has entries."""
    return kind_of(name) in ("plain", "pointwise", "write")


@lru_cache(maxsize=1024)
def is_pointwise(name: str) -> bool:
    """Return whether a node of this name has one link for each entry, to each input of its output's size."""
    return kind_of(name) == "pointwise"


def is_opaque(name: str) -> bool:
    """Return whether a node of this name has no rule."""
    return kind_of(name) == "opaque"


def is_called(name: str) -> bool:
    """Return whether a node of this name may have no explicit local Jacobian: then it is called on seeds."""
    return kind_of(name) in ("mixing", "linear algebra", "opaque")


def is_multiplied(name: str) -> bool:
    """Return whether rows pass a node of this name by a multiplication for each link."""
    return kind_of(name) in ("product", "convolution")


@lru_cache(maxsize=1024)
def kind_of(name: str) -> OpKind | Literal["opaque"]:
    """Return the kind of op that a node of this name is, by its rule; "opaque" where there is none."""
    found = named(name)
    return "opaque" if found is None else found.kind


def forget_kinds() -> None:
    """Forget what kinds ops are, as a rule has come or gone."""
    for told in (kind_of, mixes_nothing, is_pointwise):
        told.cache_clear()
