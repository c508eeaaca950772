"""The number of calls that a node's backward formula makes, for the price of a program that calls it on rows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._capture.tape import Node
from .._plan.price import MULTIPLIED, NUMBER, mapped
from .attention import FUSED
from .independent_dims import BATCHED_LINALG, SOLVES
from .nnz_estimate import links, windows
from .norms import FIRST, SECOND

#: What most formulas make
MOST = 8

#: Those that make many
LAUNCHES = {
    FUSED: 40, "CumprodBackward0": 20, **dict.fromkeys(FIRST, 12), **dict.fromkeys(SECOND, 30),
    **dict.fromkeys(BATCHED_LINALG, 50), **dict.fromkeys(SOLVES, 50),
}  # fmt: skip

#: For each step of a recurrent layer
STEP = 14


def rows_price(node: Node, cotangents: Sequence[Tensor | None]) -> float:
    """Return what a call of a node on rows takes, in microseconds."""
    launches = LAUNCHES.get(node.name, MOST)
    if node.name == "MkldnnRnnLayerBackward0":
        launches = STEP * node.shape[0]
    numbers = max(0 if rows is None else rows.numel() for rows in cotangents)
    if (columns := windows(node)) and node.numel:
        multiplied = sum([links(node, k) for k in range(2) if node.needs(k)])
        return mapped(launches, 0) + numbers / node.numel * (NUMBER * columns + MULTIPLIED * multiplied)
    return mapped(launches, numbers)
