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
        "of 0.6 ms alone 0.45 is Python: recording, reading and walking 26 nodes; beside torch, in cold caches, 0.85",
    ),
    (
        "rosenbrock",
        "dense, eager",
        "",
        "of 1 ms nearly all is Python over two walks, in float32 as in float64, where it is met",
    ),
    (
        "lenet",
        "dense - structured",
        "",
        "a difference of two times of 10 ms each, within their noise",
    ),
    (
        "tangent_kernel_whole",
        "dense, eager",
        "",
        "gradients of images go through vmap, which copies a dummy image for each row: 7 of 57 ms in float32",
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
