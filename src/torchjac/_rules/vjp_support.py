"""The nodes whose backward formula must be called with care, each with its reason (torch 2.9-2.13)."""

from __future__ import annotations

from collections.abc import Sequence, Set

import torch

from .._blocks.tracing import inside_functorch
from .._capture.tape import Node
from .._capture.writing_functions import WRITE, WRITE_OF_FUNCTION
from .attention import FUSED
from .backward_overrides import fails, has_override
from .norms import SECOND

#: name → what goes wrong when the formula is called on a batch of cotangents
UNBATCHED: dict[str, str] = {
    "CdistBackward0": "silently wrong at small sizes: the batched formula drops the cotangent's batch dim",
    "EuclideanDistBackward0": "double backward of cdist shares its formula",
    "NativeLayerNormBackwardBackward0": "silently wrong: sums over the batch of cotangents",
    "NativeBatchNormBackwardBackward0": "silently wrong: sums over the batch of cotangents",
    "BatchNormBackwardBackward0": "silently wrong: sums over the batch of cotangents",
    "torch::jit::(anonymous namespace)::DifferentiableGraphBackward": (
        "TorchScript makes a profile of the batch, by which it takes later calls for zero"
    ),
}

#: name → what goes wrong when the formula is called on a batch while a graph of it is recorded
UNBATCHED_RECORDED: dict[str, str] = {
    "NativeLayerNormBackward0": "the graph recorded under vmap has wrong second derivatives",
    "NativeBatchNormBackward0": "the graph recorded under vmap has wrong second derivatives",
    "NativeBatchNormLegitBackward0": "shares the formula of NativeBatchNormBackward0",
    "NativeBatchNormLegitBackward1": "shares the formula of NativeBatchNormBackward0",
    "BatchNormWithUpdateBackward0": "shares the formula of NativeBatchNormBackward0",
}

#: name → what goes wrong in second derivatives through the formula; the rule, or `call`, does not use it
WRONG_TWICE: dict[str, str] = {
    **dict.fromkeys(SECOND, "its graph takes the statistics for constants"),
    **dict.fromkeys(
        (FUSED, "CdistBackward0", "PdistBackward0", "SparseMaskBackward0"), "it has no derivative"
    ),
    "LogcumsumexpBackward0": "its graph loses what depends on entries of the cotangent that are zero",
    **{
        f"ToSparse{layout}Backward{k}": "its graph has nodes that take sparse cotangents"
        for layout in ("", "Csr", "Csc", "Bsr", "Bsc")
        for k in range(2)
    },
    "SparseCooTensorWithDimsAndTensorsBackward0": "it reads the values of a sparse cotangent, which carry no graph",
    "CoalesceBackward0": "a sparse cotangent carries no graph to its values",
    "ValuesBackward0": "the sparse cotangent that it makes carries no graph to its values",
}


#: What PyTorch raises where a formula cannot be called on a batch: no batching rule, a Function that leaves PyTorch,
#: or a rule that counts a dim too many (`flip` of a 0-dim tensor)
CANNOT_BATCH = (RuntimeError, TypeError, ValueError, IndexError)


def raise_if_out_of_memory(error: Exception, doing: str) -> None:
    """Raise an error again, with a note of what was being done, if what lacked was memory and no batching rule.

    Row by row it might fit, but so slowly that it would pass for hanging.
    """
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        _note(error, f"{doing}; fewer rows at once need less: see chunk_size")
        raise error


class noted:  # a context manager, and used as one
    """Give an error that is raised inside, as in a user's own backward, one note of what was being done."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            _note(error, self.what)


def _note(error: Exception, doing: str) -> None:
    # Python 3.11 has notes; the innermost of ours is enough.
    if hasattr(error, "add_note") and not any(n.startswith(_OURS) for n in getattr(error, "__notes__", ())):
        error.add_note(f"{_OURS}{doing}")


_OURS = "torchjac was "


def can_vmap(node: Node) -> bool:
    """Return whether a node may be called under vmap, by `call`."""
    return has_override(node.name) or all_can_vmap({node.name})


def why_unbatched(node: Node) -> str:
    """Return why a node may not be called under vmap."""
    return UNBATCHED.get(node.name) or UNBATCHED_RECORDED[node.name]


def all_can_vmap(names: Set[str]) -> bool:
    """Return whether PyTorch's formulas of all nodes of these names may be called under vmap, as its engine does."""
    return names.isdisjoint(UNBATCHED) and (
        not torch.is_grad_enabled() or names.isdisjoint(UNBATCHED_RECORDED)
    )


def engine_takes_batches(nodes: Sequence[Node]) -> bool:
    """Return whether PyTorch's engine is right on a batch of rows, as far as it is on one row.

    Of a batch of 0-dim tensors PyTorch's vmap rolls the batch (torch 2.9-2.14).
    """
    names = {node.name for node in nodes}
    return all_can_vmap(names) and not any(node.name == "RollBackward0" and not node.shape for node in nodes)


def needs_own_vjp(names: Set[str]) -> bool:
    """Return whether the formulas of nodes of these names would be recorded with wrong derivatives, or none."""
    return torch.is_grad_enabled() and not names.isdisjoint(WRONG_TWICE)


def makes_sparse(names: Set[str]) -> bool:
    """Return whether nodes of these names make or take sparse tensors: many formulas fail on sparse cotangents."""
    return any("Sparse" in name for name in names)


def takes_rows_itself(node: Node) -> bool:
    """Return whether rows can be taken through a node by `call`, and what is recorded has right derivatives."""
    return can_vmap(node) and (has_override(node.name) or not needs_own_vjp({node.name}))


def engine_refuses(nodes: Sequence[Node]) -> bool:
    """Return whether PyTorch's engine would fail where calls of the nodes one by one are right.

    Where a formula fails that is written anew; and inside vmap a write through a view refuses a cotangent that is less
    batched than what was written, and the engine makes such zeros; `call` gives it batched ones.
    """
    mapped = inside_functorch()
    return any((mapped and node.name in (WRITE, WRITE_OF_FUNCTION)) or fails(node) for node in nodes)
