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
        "dense_mlp",
        "dense, eager",
        "",
        "of torch's products a quarter is spared, the seed's with the last weight",
    ),
    (
        "dense_mlp",
        "dense, compiled",
        "",
        "nothing but float64 matrix products: 256×512×512 takes 2.5 ms in PyTorch's MKL here, 1.2 ms in jax",
    ),
    (
        "mapped",
        "dense, compiled",
        "",
        "its one large product takes 0.16 of 0.23 ms in PyTorch's MKL, and jax's whole call 0.18 ms",
    ),
    (
        "autoregressive",
        "structured, compiled",
        "asdex",
        "float64 products: 64×64×8192 takes 1.5 ms in PyTorch's MKL here, 0.8 ms in jax; turning values over, 0.9 ms",
    ),
    (
        "arm",
        "first call",
        "",
        "Inductor on 636 scalar ops: in a process of its own 4.2 s of processor time, torch.compile(jacrev) 5.1 s",
    ),
    (
        "camera",
        "dense, compiled",
        "",
        "columns, one for each of the pose's 6 numbers: over half of the time is the last loop, which gives rows",
    ),
    (
        "image_to_image",
        "compiled",
        "",
        "a product for each pair of offsets, 3,288 ops: the first call takes 45 s, 33 of them the C++ compiler's",
    ),
    (
        "image_to_image",
        "first call",
        "",
        "a product for each pair of offsets, 3,288 ops: the C++ compiler takes 33 of 45 s",
    ),
    (
        "sine",
        "dense, eager",
        "hand",
        "16 MB of new pages: 1.5 to 2.2 from run to run (float64 0.7 to 1.5), by what the C library has at hand",
    ),
    (
        "line",
        "dense, eager",
        "",
        "half of 0.45 ms is Python, recording and reading 26 nodes, in float32 as in float64, where it is met",
    ),
    (
        "rosenbrock",
        "dense, eager",
        "",
        "nearly all of it is Python over two walks, in float32 as in float64, where it is met",
    ),
    (
        "lenet",
        "dense - structured",
        "",
        "a difference of two times of 10 ms each, within their noise",
    ),
    (
        "",
        "dense - structured",
        "",
        "a difference of two times that is within their noise",
    ),
    (
        "arm",
        "dense, compiled",
        "",
        "11 µs beside 8: entering a compiled program takes some 4 of them",
    ),
    (
        "spherical",
        "dense, compiled",
        "",
        "5 µs beside 4.5: entering a compiled program takes most of them",
    ),
    (
        "wide_narrow_wide",
        "dense, compiled",
        "",
        "one product into 32 MB: 4.6 ms beside 4.0, and beside 13 in the run before, by the pages at hand",
    ),
    (
        "tangent_kernel_whole",
        "dense, eager",
        "",
        "float32 from run to run: torch's own takes 22 to 40 ms here, ours 31 to 42, both in the same convolutions",
    ),
    (
        "hand_tracking",
        "compiled",
        "",
        "6,883 ops of matrices filled entry by entry: Inductor takes two minutes, then a call takes 2 ms",
    ),
    (
        "kernel_sum",
        "memory",
        "",
        "recorded, the function holds 160 MB of m × m × 2 numbers itself; by hand too it takes more than is allowed",
    ),
    (
        "lenet",
        "structured, eager",
        "",
        "a tie: both ways call the backward of the same convolutions on the same images, which takes most of the time",
    ),
    (
        "tangent_kernel_mapped",
        "dense, eager",
        "",
        "float32 from run to run: torch's own takes 23 to 40 ms here, ours 29 to 32, both in the same convolutions",
    ),
    (
        "camera",
        "dense, eager",
        "",
        "within their noise: 0.96 in the run before, 1.06 in this one",
    ),
    (
        "whole",
        "first call",
        "",
        "of both nearly all is the C++ compiler's, a second more or less",
    ),
    (
        "parameters",
        "dense, compiled",
        "",
        "a tie: 160 ms beside 157",
    ),
    ("mapped", "eager", "", "one row at a time has no structure: torch's own walk, and Python's on top"),
    (
        "hand_tracking",
        "eager",
        "",
        "a quarter is recording 961 ops and reading them in Python; each of 309 writes of one entry goes down as five",
    ),
    (
        "",
        "structured, compiled",
        "hand",
        "entering a compiled program takes some 4 µs beside the arithmetic",
    ),
]


def reason(goal: dict[str, Any]) -> str:
    """The first reason that fits a missed goal."""
    makes = ("", goal["make"]) if goal["ratio"] is not None else (goal["make"],)
    for make, words, peer, text in REASONS:
        if make in makes and words in goal["goal"] and peer in ("", goal["peer"]):
            return text
    return "not looked into yet" if goal["ratio"] is not None else "no figure of ours: see the table"
