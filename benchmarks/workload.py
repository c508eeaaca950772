"""What a workload is: a function written once for torch and jax.numpy, its input, and what a person would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # a numpy array, a torch tensor or a jax array, whichever namespace is asked


@dataclass(frozen=True)
class Places:
    """Where the numbers of a structured answer stand: the rows and columns of its flattened tensors in turn."""

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class Workload:
    """One problem.

    Attributes:
        name: as it stands in the table.
        function: ``function(xp, x, *constants)`` in terms of a namespace ``xp``, torch or jax.numpy.
        x: what is differentiated: a float64 array or a dict of them; the arrays of ``constants`` are not.
        order: 1 for a Jacobian, 2 for the Hessian of a scalar function.
        transform: ``transform(jac, g)``, with ``g(x, *constants)``, gives what is called with the same arguments;
            by default ``jac(g)``. Loops and other spellings have one of their own.
        by_hand: ``by_hand(vmap, jac, g)``: how a person would batch it, in torch and in jax.
        by_hand_places: where the numbers of that answer stand; None means that it is the dense answer.
        hand: the best a person would write in torch for the dense answer, ``hand(x, *constants)``.
        blocks: the same for the numbers that are not known to be zero, a tuple of tensors.
        blocks_places: where these stand.
        casadi: ``casadi(ca, x, *constants)`` for a column ``x`` of symbols gives a column, in the same order as
            the flattened output.
        jax: whether the function can run under jax.
        dense: whether a dense answer fits in memory.
        structured: whether a structured answer is asked for.
        batched: whether ``vmap`` is part of ``transform`` (torchjac then answers densely only).
        tiny: whether the goals of tiny functions hold.
        goals: further goals, ``(column, peer, ratio)``.
        compiled: whether torch.compile of torch.func's transforms is among the peers by default; it takes long.
        calls: how many Jacobians one call makes, for loops.
    """

    name: str
    function: Callable[..., Array]
    x: Any
    constants: tuple[Any, ...] = ()
    order: int = 1
    transform: Callable[..., Any] | None = None
    by_hand: Callable[..., Any] | None = None
    by_hand_places: Callable[[], Places] | None = None
    hand: Callable[..., Any] | None = None
    blocks: Callable[..., Any] | None = None
    blocks_places: Callable[[], Places] | None = None
    casadi: Callable[..., Any] | None = None
    jax: bool = True
    dense: bool = True
    structured: bool = True
    batched: bool = False
    tiny: bool = False
    goals: tuple[tuple[str, str, float], ...] = ()
    compiled: bool = False
    calls: int = 1


@dataclass(frozen=True)
class Entry:
    """A workload that can be made in its full size and in a small one for tests."""

    make: Callable[..., Workload]
    full: dict[str, Any]
    small: dict[str, Any]


#: Every workload in the order of the table; the modules of `benchmarks.workloads` fill it.
ENTRIES: list[Entry] = []


def workload(small: dict[str, Any], *full: dict[str, Any]) -> Callable[..., Any]:
    """Register a function that makes a workload, in each of the sizes ``full``, and ``small`` for tests."""

    def register(make: Callable[..., Workload]) -> Callable[..., Workload]:
        for size in full or ({},):
            ENTRIES.append(Entry(make, size, small))
        return make

    return register


def random(seed: int = 0) -> np.random.Generator:
    """The numbers of a workload are the same in every process."""
    return np.random.default_rng(seed)


def rowwise(vmap: Callable[..., Any], jac: Callable[..., Any], g: Callable[..., Any]) -> Callable[..., Any]:
    """``vmap(jac(g))`` over the rows of x, for a function that acts on each row alone."""

    def call(x: Array, *constants: Any) -> Array:
        return vmap(jac(lambda row: g(row, *constants)))(x)

    return call


def row_places(batch: int, out: int, wrt: int) -> Callable[[], Places]:
    """Places of ``vmap(jac(g))`` of shape (batch, out, wrt): the blocks of a block-diagonal matrix."""

    def places() -> Places:
        b, o, i = np.indices((batch, out, wrt)).reshape(3, -1)
        return Places(b * out + o, b * wrt + i, (batch * out, batch * wrt))

    return places
