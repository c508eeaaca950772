"""Sparse tensors inside a function: which entries are stored says which count."""

from __future__ import annotations

from .._capture.tape import Node
from .call import call, fit
from .pointwise import diagonal_term
from .registry import Local, rule
from .spell import ones


@rule(
    "ToSparseBackward0", "ToSparseBackward1", "ToSparseCsrBackward0", "ToSparseCscBackward0",
    "ToSparseBsrBackward0", "ToSparseBscBackward0",
    any_dtype=True,
)  # fmt: skip
def to_sparse(node: Node) -> list[Local]:
    """A tensor without its zeros: out = x."""
    return [diagonal_term(node, 0, 1.0)]


@rule("ToDenseBackward0", any_dtype=True)
def to_dense(node: Node) -> list[Local]:
    """A sparse tensor as a dense one: ∂out[i]/∂x[i′] = δ[i,i′] where x stores an entry, zero elsewhere."""
    (stored,) = call(node, [ones(node)])
    return [diagonal_term(node, 0, fit(stored, node.into(0)))._replace(selects=True)]
