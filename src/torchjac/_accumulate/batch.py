"""The samples of a batch, as far down a tape as they are told apart: what one of them costs says what all do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .._capture.tape import Edge, Node, Tape, size_of
from .._rules.nnz_estimate import is_pointwise, kind_of

#: Which input of a matrix product is its second factor
SECOND = {"MmBackward0": 1, "MvBackward0": 1, "AddmmBackward0": 2, "AddmvBackward0": 2}


class Samples(NamedTuple):
    """The number of samples, and the tensors whose first dim tells them apart, alone or joined with others.

    Whatever reads such a tensor on the way from the outputs has them too: no row of one sample meets another.
    """

    size: int
    apart: frozenset[Edge]

    def of(self, edge: Edge) -> int:
        """Return how many samples a tensor has."""
        return self.size if edge in self.apart else 1


def samples_of(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> Samples:
    """Return the samples of a tape. All outputs begin with them; others share a tensor, as parameters, or mix."""
    shapes = [*out_shapes, *(node.shape for node in (*tape.nodes, *tape.inputs))]
    count = next((shape[0] for shape in out_shapes if shape), 1)
    if not all(shape and shape[0] == count for shape in out_shapes):
        return Samples(1, frozenset())
    if not any(len(shape) > 1 and shape[0] == count for shape in shapes):  # of vectors alone
        return Samples(1, frozenset())
    apart, mixed = set(filter(None, tape.outputs)), set[Edge]()
    for node in tape.nodes:
        has = any((node, slot) in apart for slot in range(len(node.outputs))) and not _mixes_first(node)
        for k, edge in enumerate(node.inputs):
            if edge is not None:
                (apart if has and _keeps_first(node, k, edge, count) else mixed).add(edge)
        apart -= mixed
    return Samples(count, frozenset(apart))


def _mixes_first(node: Node) -> bool:
    """Return whether a node mixes along the first dim, as linear algebra of a lone matrix does."""
    if kind_of(node.name) != "linear algebra":
        return False
    return all(len(node.into(k).shape) < 3 for k in range(len(node.inputs)) if node.needs(k))


def _keeps_first(node: Node, k: int, edge: Edge, count: int) -> bool:
    """Return whether the first dim of what a node reads tells the samples of its output apart."""
    shape, own = node.into(k).shape, node.shape
    if not shape or not own or SECOND.get(node.name) == k:
        return False
    if is_pointwise(node.name) and len(shape) != len(own):  # broadcast along the first
        return False
    return shape[0] == own[0] or (size_of(edge) == node.numel and shape[0] % count == 0)
