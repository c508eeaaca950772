"""Why a goal is missed, where it is known: by the workload's maker and the words of the goal."""

from __future__ import annotations

from typing import Any

#: (workload, words of the goal, peer, reason): the first that fits is told; an empty word stands for all.
REASONS: list[tuple[str, str, str, str]] = [
    (
        "",
        "tiny, eager",
        "",
        "reading the graph and calling its nodes costs Python some µs for each recorded op",
    ),
    (
        "arm",
        "dense, eager",
        "",
        "reading the graph and calling its nodes costs Python some µs for each recorded op",
    ),
    (
        "spherical",
        "dense, compiled",
        "",
        "entering a compiled program of PyTorch takes longer than jax's whole call",
    ),
    (
        "dense_mlp",
        "dense, eager",
        "",
        "of torch's products a quarter is spared, the seed's with the last weight",
    ),
    (
        "dense_mlp",
        "dense, compiled",
        "",
        "nothing but matrix products, and jax's run faster here than PyTorch's",
    ),
    (
        "kernel_sum",
        "memory",
        "",
        "a few tensors of m × m × 2 numbers, 64 MB each; by hand it takes one and the answer",
    ),
    ("mapped", "eager", "", "one row at a time has no structure: torch's own walk, and Python's on top"),
    (
        "",
        "structured, compiled",
        "hand",
        "entering a compiled program takes up to 8 µs, more than the arithmetic",
    ),
]


def reason(goal: dict[str, Any]) -> str:
    """The first reason that fits a missed goal."""
    if goal["ratio"] is None:
        return "no figure of ours: see the table"
    for make, words, peer, text in REASONS:
        if make in ("", goal["make"]) and words in goal["goal"] and peer in ("", goal["peer"]):
            return text
    return "not looked into yet"
