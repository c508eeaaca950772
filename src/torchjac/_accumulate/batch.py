"""The samples of a batch that a tape never mixes: what one of them costs says what all do."""

from __future__ import annotations

from collections.abc import Sequence

from .._capture.tape import Edge, Node, Tape
from .._rules.nnz_estimate import kind_of

#: Which input of a matrix product is its second factor
SECOND = {"MmBackward0": 1, "MvBackward0": 1, "AddmmBackward0": 2, "AddmvBackward0": 2}


def batch_of(tape: Tape, out_shapes: Sequence[Sequence[int]]) -> int:
    """Return the size of the first dim if it tells samples apart that are never mixed, and 1 otherwise.

    All outputs have it, and whatever is made of a tensor that has it. Others are shared by all samples, as parameters.
    """
    shapes = [*out_shapes, *(node.shape for node in (*tape.nodes, *tape.inputs))]
    size = next((shape[0] for shape in out_shapes if shape), 1)
    if not all(shape and shape[0] == size for shape in out_shapes):
        return 1
    if not any(len(shape) > 1 and shape[0] == size for shape in shapes):  # of vectors alone
        return 1
    for node in tape.nodes:
        reads = [samples_of(edge, size) for edge in node.inputs if edge is not None]
        if size in reads and (samples_of((node, 0), size) == 1 or _mixes_first(node, size)):
            return 1
    return size


def samples_of(edge: Edge, batch: int) -> int:
    """Return how many samples of a batch a tensor has."""
    node, slot = edge
    shape = node.outputs[slot].shape
    return batch if shape and shape[0] == batch else 1


def _mixes_first(node: Node, size: int) -> bool:
    """Return whether a node mixes along the first dim: a second factor of a product does, and a lone matrix."""
    if kind_of(node.name) == "linear algebra":
        return all(len(node.into(k).shape) < 3 for k in range(len(node.inputs)) if node.needs(k))
    second = SECOND.get(node.name)
    edge = node.inputs[second] if second is not None and node.needs(second) else None
    return edge is not None and samples_of(edge, size) == size
