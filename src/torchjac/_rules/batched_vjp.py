"""Many cotangents at once without vmap, taken through a graph node by node.

On small tensors vmap costs several times what the arithmetic does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor

from .._capture.capture import map_rows
from .._capture.tape import Meta, Node
from .._plan.recording import is_like, whole
from . import batched_assign, batched_images, batched_linalg, batched_products, batched_tables  # noqa: F401  (they register formulas)
from .backward_overrides import by_override, has_override, needs_override
from .batched_formulas import FORMULAS, OF_SEVERAL, OF_SOME, Results
from .batched_parts import Waiting, hold, joined
from .call import call, fit
from .call_counts import rows_price


def goes_in_front(name: str) -> bool:
    """Return whether nodes of this name have a formula here."""
    return name in FORMULAS or has_override(name)


def vjp_rows(node: Node, pending: Waiting, count: int) -> None:
    """Take the ``count`` cotangents that wait at a node, a dim in front of their own, to the tensors below it."""
    if len(node.outputs) == 1:  # nearly every node: on a tiny graph each microsecond counts
        rows = joined(pending.pop((node, 0), None), node.outputs[0], count)
        if rows is None:
            return
        if hold(node, rows, pending):
            node.calls += 1
            return
        cotangents: list[Tensor | None] = [rows]
    else:
        cotangents = [
            joined(pending.pop((node, slot), None), meta, count) for slot, meta in enumerate(node.outputs)
        ]
        if all(rows is None for rows in cotangents):
            return
    results = _formula(node, count, cotangents)
    if results is None:
        results = _mapped(node, cotangents) if count > 1 else _alone(node, cotangents)
    else:
        node.calls += 1
    for edge, result in zip(node.inputs, results, strict=False):
        if edge is not None and result is not None:
            below, slot = edge
            meta = below.outputs[slot]
            result = _fit(result, meta, count)
            other = joined(pending.get(edge), meta, count)
            pending[edge] = result if other is None else other + result


def _formula(node: Node, count: int, cotangents: Sequence[Tensor | None]) -> Results | None:
    """Return rows of the inputs by a formula that takes them without vmap; None where there is none."""
    if needs_override(node, cotangents):
        return by_override(node, cotangents)
    if node.name in FORMULAS and (count > 1 or node.name not in OF_SEVERAL):
        return FORMULAS[node.name](node, count, *cotangents)
    if has_override(node.name):
        # Of one row PyTorch records its own formula as one node.
        return None if count == 1 and torch.is_grad_enabled() else by_override(node, cotangents)
    return OF_SOME[node.name](node, count, *cotangents) if count > 1 and node.name in OF_SOME else None


def by_formula(
    node: Node, slot: int, rows: Tensor, wanted: Collection[int]
) -> Sequence[Tensor | None] | None:
    """Return rows of the wanted inputs, of those of one output, by a formula; None where there is none."""
    count = rows.shape[0]
    given = [rows if k == slot else None for k in range(len(node.outputs))]
    results = _formula(node.narrowed(wanted), count, given)
    if results is None:
        return None
    node.calls += 1
    return [
        None
        if result is None or edge is None or k not in wanted
        else _fit(result, edge[0].outputs[edge[1]], count)
        for k, (result, edge) in enumerate(zip_longest(results, node.inputs))
    ]


def _fit(result: Tensor, meta: Meta, count: int) -> Tensor:
    """Return what `fit` does, with rows in front."""
    shape = (count, *meta.shape)
    if is_like(result, shape, meta.dtype):
        return result
    if result.shape != shape:
        more = result.dim() - len(shape)
        kept = (count, *(1,) * more, *meta.shape)
        dims = [dim for dim, size in enumerate(kept) if size == 1 and result.shape[dim] != 1]
        result = result.sum(dims, keepdim=True) if dims else result  # `sum_to_size` takes twice as long
        result = result.view(shape) if more else result
    return result if result.dtype is meta.dtype else fit(result, Meta(shape, meta.dtype, meta.device))


def _alone(node: Node, cotangents: Sequence[Tensor | None]) -> Results:
    """Return the formula of one row, which is what PyTorch wrote it for: under vmap `cumprod` takes a way of n² ops."""
    results = call(node, [None if rows is None else rows[0] for rows in cotangents])
    return [
        None if result is None or edge is None else fit(result, edge[0].outputs[edge[1]]).unsqueeze(0)
        for result, edge in zip(results, node.inputs, strict=False)
    ]


@partial(whole, price=lambda node, cotangents: rows_price(node, cotangents))
def _mapped(node: Node, cotangents: Sequence[Tensor | None]) -> Results:
    """Return the formula under vmap."""
    present = {slot: cotangent for slot, cotangent in enumerate(cotangents) if cotangent is not None}

    def one(*rows: Tensor) -> list[Tensor | None]:
        given: list[Tensor | None] = [None] * len(cotangents)
        for slot, row in zip(present, rows, strict=True):
            given[slot] = row
        return [
            None if result is None or edge is None else fit(result, edge[0].outputs[edge[1]])
            for result, edge in zip(call(node, given), node.inputs, strict=False)
        ]

    return map_rows(one, list(present.values()))
