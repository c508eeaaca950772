"""Calling a node on rows of cotangents: at once by a formula or under vmap, or one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from torch import Tensor

from .._capture.capture import map_rows
from .._capture.tape import Node
from .._plan.price import NODE
from .._plan.recording import whole
from .._rules.batched_vjp import by_formula
from .._rules.call import call, fit
from .._rules.call_counts import rows_price
from .._rules.vjp_support import CANNOT_BATCH, can_vmap, noted, raise_if_out_of_memory, why_unbatched
from .progress import track
from .tape_costs import rows_at_once


def call_rows(
    node: Node, slot: int, rows: Tensor, wanted: Collection[int], chunk: int | None
) -> list[Tensor | None]:
    """Call the node on each row, for some of its inputs: a row of results for each, None where it is zero for all."""
    count = rows.shape[0]
    with noted(f"calling {node.name}, to find a Jacobian by {count} rows"):
        batched = count > 1 and can_vmap(node) and _at_once(node, count, chunk) >= count
        formula = by_formula(node, slot, rows, wanted) if batched else None
        if formula is not None:
            return list(formula)
        return _call_rows(node, (slot,), [rows], wanted, chunk)


def call_rows_together(
    node: Node, slots: Sequence[int], rows: Sequence[Tensor], wanted: Collection[int], chunk: int | None
) -> list[Tensor | None]:
    """Call the node on each row of cotangents of several outputs; see `call_rows`."""
    with noted(f"calling {node.name}, to find a Jacobian by {rows[0].shape[0]} rows"):
        return _call_rows(node, tuple(slots), list(rows), wanted, chunk)


def _at_once(node: Node, count: int, chunk: int | None) -> int:
    return chunk or rows_at_once([node, *(below for below, _ in filter(None, node.inputs))], count)


@partial(whole, price=lambda node, slots, rows, *_: NODE + rows_price(node, rows))
def _call_rows(
    node: Node, slots: tuple[int, ...], rows: list[Tensor], wanted: Collection[int], chunk: int | None
) -> list[Tensor | None]:
    """Call the node on each row, under vmap or one by one."""
    count = rows[0].shape[0]
    metas = [node.into(k) if k in wanted else None for k in range(len(node.inputs))]
    present: list[int] = []

    def one(*row: Tensor) -> tuple[Tensor, ...]:
        cotangents: list[Tensor | None] = [None] * len(node.outputs)
        for slot, cotangent in zip(slots, row, strict=True):
            cotangents[slot] = cotangent
        results = call(node, cotangents, wanted)
        given = {
            k: (result, meta)
            for k, meta in enumerate(metas)
            if meta is not None and (result := results[k]) is not None
        }
        present[:] = given
        return tuple(fit(result, meta) for result, meta in given.values())

    if count == 1:
        found: Sequence[Tensor] = tuple(result.unsqueeze(0) for result in one(*[part[0] for part in rows]))
    elif not can_vmap(node):
        node.unbatched = why_unbatched(node)
        found = _stack(one, rows)
    else:
        size = _at_once(node, count, chunk)
        try:
            found = _batched(one, rows, size)
        except CANNOT_BATCH as error:
            raise_if_out_of_memory(error, f"calling {node.name} on {size} of {count} rows at once")
            # No batching rule, or a Function that leaves PyTorch: one row at a time is always right, and an
            # error of the user's own shows itself again there.
            node.unbatched = f"a batch of rows failed: {error}".splitlines()[0]
            found = _stack(one, rows)
    results: list[Tensor | None] = [None] * len(metas)
    for k, result in zip(present, found, strict=True):
        results[k] = result
    return results


def _batched(one: Callable[..., Sequence[Tensor]], rows: Sequence[Tensor], size: int) -> Sequence[Tensor]:
    pieces = list(zip(*[part.split(size) for part in rows], strict=True))
    parts: list[Sequence[Tensor]] = [
        map_rows(one, piece)
        if piece[0].shape[0] > 1
        else tuple(r.unsqueeze(0) for r in one(*[part[0] for part in piece]))
        for piece in track(pieces, f"{size} rows at once")
    ]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _stack(one: Callable[..., Sequence[Tensor]], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    each = zip(*[part.unbind(0) for part in rows], strict=True)
    found = [one(*row) for row in track(list(each), "rows")]
    return tuple(torch.stack(column) for column in zip(*found, strict=True))
