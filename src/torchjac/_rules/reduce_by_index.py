"""Reductions by index: each source entry counts towards the output entry that an index tensor names.

With S[p] the entries reduced at p, those of the source whose index is p and, with ``include_self``, self[p]:

    out[p] = reduce S[p]      ∂out[p]/∂s = 1,  1/|S[p]|,  Π S[p] without s,  or [s = out[p]] / how many are equal to it

for a sum, a mean, a product and an extremum. Without ``include_self`` self[p] stays where S[p] is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._blocks.block import Block, labels
from .._blocks.lazy import lazy
from .._blocks.maps import Label, bare
from .._capture.tape import Node
from .einsum_notation import new_labels
from .registry import Local, rule
from .scatter import indexed, kept, scattered


class Reduction:
    """The saved tensors of a reduction along a dim: self, source and index in one shape of that of the index.

    ``source`` are the entries that the index names, of a source that may be larger. PyTorch's own formula divides by
    entries, and counts self among the extrema where it is not included (torch 2.13).
    """

    def __init__(self, node: Node) -> None:
        is_index = node.name.startswith("Index")
        self.into, self.out = node.saved("self"), node.saved("result")
        self.kind, self.includes_self = node.saved("reduce"), node.saved("include_self")
        source, index = node.saved("source" if is_index else "src"), node.saved("index")
        self.dim = node.saved("dim") % max(self.into.dim(), 1)
        if is_index:
            shape = [-1 if dim == self.dim else 1 for dim in range(source.dim())]
            index = index.reshape(shape).expand(source.shape)
        elif index.dim() != source.dim():  # of one entry each
            index, source = index.reshape(-1), source.reshape(-1)
        for dim, size in enumerate(index.shape):
            source = source.narrow(dim, 0, size)
        self.index, self.source = index, source

    def sum_at(self, values: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the sum over the source of each output entry, over self too where a value is given for it."""
        start = torch.zeros_like(self.into) if start is None else start
        return start.scatter_add(self.dim, self.index, values.to(start.dtype))

    def read(self, values: Tensor) -> Tensor:
        """Return what stands at the output entry of each source entry."""
        return values.gather(self.dim, self.index)

    @lazy
    def hit(self) -> Tensor:
        """Which output entries the index names."""
        hole = torch.zeros(self.into.shape, dtype=torch.bool, device=self.into.device)
        return hole.scatter(self.dim, self.index, True) if self.index.numel() else hole

    def factors(self) -> tuple[Tensor | float, Tensor | float]:
        """Those of self, where it is included, and of the source."""
        if self.kind == "sum":
            return 1.0, 1.0
        if self.kind == "mean":
            own = torch.ones_like(self.into) if self.includes_self else None
            each = 1 / self.sum_at(torch.ones_like(self.source), own).clamp_min(1)
            return each, self.read(each)
        return self._of_product() if self.kind == "prod" else self._of_extremum()

    def _of_extremum(self) -> tuple[Tensor, Tensor]:
        own, other = self.into == self.out, self.source == self.read(self.out)
        if not self.includes_self:
            own = own & ~self.hit
        share = 1 / self.sum_at(other, own.to(self.into.dtype))
        return own * share, other * self.read(share)

    def _of_product(self) -> tuple[Tensor, Tensor]:
        """Return the product of all others, spelled so that its derivative is right at zeros too.

        With P the product of the entries that are not zero, z how many are zero and Z their sum, that of all but s is

            z = 0: P / s      z = 1: P where s is the zero, Z P / s elsewhere      z = 2: (Z − s) P where s is a zero
        """
        own = self.into if self.includes_self else torch.ones_like(self.into)
        zeros, zero = own == 0, self.source == 0
        full, whole = own.masked_fill(zeros, 1), self.source.masked_fill(zero, 1)
        product = full.scatter_reduce(self.dim, self.index, whole, "prod")
        count = self.sum_at(zero, zeros.to(own.dtype))
        rest = self.sum_at(self.source.masked_fill(~zero, 0), own.masked_fill(~zeros, 0))

        def others(s: Tensor, is_zero: Tensor, full: Tensor, *at: Tensor) -> Tensor:
            product, count, rest = at
            of_zero = torch.where(count == 1, 1, torch.where(count == 2, rest - s, 0))
            of_full = torch.where(count == 0, 1, torch.where(count == 1, rest, 0)) / full
            return product * torch.where(is_zero, of_zero, of_full)

        at = product, count, rest
        return others(own, zeros, full, *at), others(self.source, zero, whole, *map(self.read, at))


@rule("ScatterReduceBackward0", "IndexReduceBackward0")
def reduce_by_index(node: Node) -> list[Local]:
    """Scatter or index with a reduction, each source entry to the place that its index names.

    ∂out[index[i,j],j]/∂source[i′,j′] = δ[i,i′] δ[j,j′] factor[i,j]      ∂out/∂self is diagonal

    Example: 300 entries reduced to 100 by their maximum: 300 of 30,000 entries, 300 numbers and an index.
    """
    found = Reduction(node)
    own, factor = found.factors()
    terms = [] if found.includes_self else kept(node, found.hit)
    if node.needs(0) and found.includes_self:
        over = new_labels(node.shape)
        maps = tuple(map(bare, over))
        terms.append(Local(0, Block(own, over if isinstance(own, Tensor) else (), maps, maps)))
    if not node.needs(1) or not found.index.numel():
        return terms
    if node.name.startswith("Index"):
        picked, whole = indexed(node, node.into(1).shape)
        block = Block(1.0, (), whole, picked)
    else:
        ((_, block, *_),) = scattered(node, node.saved("index"))
    on: tuple[Label, ...] = ()
    if isinstance(factor, Tensor):
        on = labels(block)
        factor = factor.reshape([label.size for label in on])
    return [*terms, Local(1, Block(factor, on, block.out, block.wrt))]
