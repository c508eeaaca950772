"""The nodes whose backward formula must not be called under vmap, each with its reason (torch 2.9-2.13)."""

from __future__ import annotations

from .._capture.tape import Node

#: name → what goes wrong when the formula is called on a batch of cotangents
UNBATCHED: dict[str, str] = {
    "CdistBackward0": "silently wrong at small sizes: the batched formula drops the cotangent's batch dim",
    "EuclideanDistBackward0": "double backward of cdist shares its formula",
}


def runs_batched(node: Node) -> bool:
    """Whether the node may be called under vmap."""
    return node.name not in UNBATCHED
