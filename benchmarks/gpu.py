"""torchjac beside torch.func on a GPU: values checked, times, peak memory, and how often a call waits for the device.

    make gpu                                     the tests on a GPU, then this table
    python benchmarks/gpu.py --device cpu        the same on the CPU, to try the script

Each line is a function in one size. Ours (dense `jacrev`, and blocks by `jacobian`) must agree with
`torch.func.jacrev` before it is timed. Times are medians of calls that end with a synchronisation; the peak is what a
call allocates above what was there before; "waits" counts the synchronisations that PyTorch's own debug mode sees in
one call (0 on a CPU, which has none). The whole takes at most `--seconds`, ten minutes unless said: lines that no time
is left for say so.
"""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root), str(root / "src")]

import torch
from torch import Tensor

import torchjac

#: A way is called at least so often, and then for so many seconds or so many times.
LEAST, MOST, ENOUGH = 6, 50, 1.0

#: Values agree to these tolerances, by dtype.
CLOSE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-11},
    torch.float32: {"rtol": 1e-3, "atol": 1e-4},
}


def stencil(x: Tensor) -> Tensor:
    """The right-hand side of a reaction and diffusion on a ring."""
    return x.roll(1) - 2 * x + x.roll(-1) + x * (1 - x**2)


def network(x: Tensor) -> Tensor:
    """A batch through a perceptron of fixed weights."""
    width = x.shape[-1]
    grid = torch.arange(width * width, dtype=x.dtype, device=x.device).reshape(width, width)
    return torch.tanh(torch.tanh(x @ torch.sin(grid)) @ torch.cos(grid))


def attention(x: Tensor) -> Tensor:
    """Self-attention without weights."""
    return torch.softmax(x @ x.mT / x.shape[-1] ** 0.5, -1) @ x


def pairs(x: Tensor) -> Tensor:
    """Forces between all points of a cloud."""
    difference = x[:, None] - x[None]
    return (difference / (1 + difference.square().sum(-1, keepdim=True))).sum(1)


def loop(x: Tensor) -> Tensor:
    """Thirty steps of a recurrence."""
    for _ in range(30):
        x = x + 0.01 * torch.sin(x) * x.sum()
    return x


class Case(NamedTuple):
    """A function in one size; ``dense`` where the dense answer is small enough to be compared and timed."""

    name: str
    f: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    dense: bool = True


CASES = [
    Case("stencil", stencil, (4_000,)),
    Case("stencil", stencil, (10_000_000,), dense=False),
    Case("network", network, (64, 32)),
    Case("network", network, (4_096, 128), dense=False),
    Case("attention", attention, (8, 64, 16)),
    Case("pairs", pairs, (256, 3)),
    Case("loop", loop, (100,)),
    Case("softmax", lambda x: x.softmax(-1), (2_000, 10)),
]

SMALL = [case._replace(shape=tuple(min(size, 12) for size in case.shape), dense=True) for case in CASES]


class Cost(NamedTuple):
    """Median seconds of a call, bytes allocated at its peak, and how often it waited for the device."""

    seconds: float
    peak: int
    waits: int


def point(case: Case, device: str, dtype: torch.dtype) -> Tensor:
    """The same numbers on any device."""
    numbers = torch.randn(case.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return numbers.to(device, dtype)


def synchronise(device: str) -> None:
    """Wait for the device where it has to be waited for."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def waits(call: Callable[[], Any], device: str) -> int:
    """Return how often a call waits for the device, as PyTorch's debug mode warns of it."""
    if not device.startswith("cuda"):
        return 0
    synchronise(device)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(warning.message) for warning in caught)


def measure(call: Callable[[], Any], device: str) -> Cost:
    """Return what a call costs once it is warm: its program is recorded before."""
    for _ in range(LEAST):
        call()
    synchronise(device)
    peak = 0
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        peak = torch.cuda.max_memory_allocated() - before
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < ENOUGH and len(times) < MOST):
        start = perf_counter()
        call()
        synchronise(device)
        times.append(perf_counter() - start)
    return Cost(median(times), peak, waits(call, device))


def check(case: Case, device: str, dtype: torch.dtype) -> None:
    """Raise unless our answers agree: the dense ones with torch.func's, products with a large one with jvp."""
    x = point(case, device, dtype)
    if case.dense:
        expected = torch.func.jacrev(case.f)(x)
        for found in (torchjac.jacrev(case.f)(x), torchjac.jacobian(case.f)(x).to_dense()):
            torch.testing.assert_close(found, expected, **CLOSE[dtype])
        return
    v = torch.ones_like(x)
    _, expected = torch.func.jvp(case.f, (x,), (v,))
    torch.testing.assert_close(torchjac.jacobian(case.f)(x) @ v, expected, **CLOSE[dtype])


def line(case: Case, device: str, dtype: torch.dtype) -> str:
    """Return a line of the table: values are checked, then each way is measured."""
    check(case, device, dtype)
    x = point(case, device, dtype)
    ways = {"blocks": torchjac.jacobian(case.f)}
    if case.dense:
        ways |= {"dense": torchjac.jacrev(case.f), "torch.func": torch.func.jacrev(case.f)}
    costs = {name: measure(lambda way=way: way(x), device) for name, way in ways.items()}
    told = [
        f"{name} {1e3 * cost.seconds:9.3f} ms {cost.peak / 1e6:10.1f} MB {cost.waits:3d} waits"
        for name, cost in costs.items()
    ]
    if case.dense:
        told.append(f"dense takes {costs['dense'].seconds / costs['torch.func'].seconds:.2f} of torch.func")
    size = "x".join(map(str, case.shape))
    return f"{case.name:<10} {size:>12}  values right  " + "; ".join(told)


def main(argv: list[str] | None = None) -> int:
    """Print the table; without a GPU say so."""
    parser = ArgumentParser(description="torchjac beside torch.func on a GPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most; then lines are left out")
    parser.add_argument("--small", action="store_true", help="sizes of a dozen, to try the script")
    asked = parser.parse_args(argv)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "no GPU: torch.cuda.is_available() is False; nothing was measured (--device cpu tries the script)"
        )
        return 0
    name = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "the CPU"
    print(f"torch {torch.__version__}, {name}, {asked.dtype}")
    dtype, end = getattr(torch, asked.dtype), perf_counter() + asked.seconds
    for case in SMALL if asked.small else CASES:
        if perf_counter() > end:
            print(f"{case.name:<10} left out: {asked.seconds:g} s are over")
            continue
        print(line(case, asked.device, dtype), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
