"""Answers in a form that can be compared: dense numbers in order, or a sparse matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from .problem import leaves
from .workload import Places

Numbers = list[np.ndarray] | csr_array


class NotForThisError(Exception):
    """The peer does not apply to the problem; the message says why."""


def dense_numbers(answer: Any) -> Numbers:
    """Each tensor of a dense answer, flattened."""
    return [
        np.asarray(leaf.detach() if hasattr(leaf, "detach") else leaf).reshape(-1) for leaf in leaves(answer)
    ]


def blocks_of(answer: Any) -> Numbers:
    """The matrix of a torchjac.Jacobian."""
    return csr_array(answer.to_scipy())


def at_places(places: Callable[[], Places]) -> Callable[[Any], Numbers]:
    """The matrix of a tuple of tensors (or of one), given where their numbers stand."""

    def numbers(answer: Any) -> Numbers:
        parts = answer if isinstance(answer, tuple) else (answer,)
        values = np.concatenate([np.asarray(part).reshape(-1) for part in parts])
        where = places()
        return csr_array(coo_array((values, (where.rows, where.columns)), shape=where.shape))

    return numbers


def difference(one: Numbers, other: Numbers) -> float:
    """The largest difference of two answers, relative to the largest entry."""
    if isinstance(one, csr_array):
        if one.shape != other.shape:
            return float("inf")
        apart = (one - other).data
        size = np.abs(one.data).max(initial=0.0)
        return float(np.abs(apart).max(initial=0.0) / max(size, 1e-300))
    if [part.size for part in one] != [part.size for part in other]:
        return float("inf")
    largest = max(max(part.max(initial=0.0), -part.min(initial=0.0)) for part in one)
    apart = max((np.abs(a - b).max(initial=0.0) for a, b in pieces(one, other)), default=0.0)
    return float(apart / max(largest, 1e-300))


def pieces(one: list[np.ndarray], other: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both answers in pieces small enough that comparing them takes no memory worth telling."""
    step = 1_000_000
    for a, b in zip(one, other, strict=True):
        for start in range(0, a.size, step):
            yield a[start : start + step], b[start : start + step]
