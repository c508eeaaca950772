"""The nine figures that ways to a Jacobian are compared by, measured on this machine: `torchjac._plan.price`.

    python benchmarks/fit_prices.py                  each figure as measured, beside the one that stands in the code
    python benchmarks/fit_prices.py --write          and written there
    python benchmarks/fit_prices.py --device cuda    on another device

All are microseconds on one thread: of a call, of a node, or of one number. A figure is the least of several runs, for
other load only adds.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from torchjac._accumulate.dense_rows import dense_rows
from torchjac._accumulate.reverse import accumulate
from torchjac._capture.capture import capture
from torchjac._plan import price
from torchjac._plan.steps import Load

FILE = Path(price.__file__)

#: So many nodes in a chain, numbers in a tensor that is written, and rows and columns of a matrix
NODES, NUMBERS, SIZE = 64, 1_000_000, 160

#: So many blocks beside the first
BLOCKS = 6


def taken(run: Callable[[], Any], device: str, times: int = 20, repeats: int = 15) -> float:
    """Return the microseconds that a call takes."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    best = float("inf")
    for _ in range(repeats):
        wait()
        begin = clock()
        for _ in range(times):
            run()
        wait()
        best = min(best, clock() - begin)
    return best / times * 1e6


def chain(x: torch.Tensor) -> torch.Tensor:
    """A chain of pointwise ops."""
    for _ in range(NODES):
        x = x.sin()
    return x


def walk(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, device: str) -> tuple[float, float]:
    """Return what the walk by structure takes, and what dense rows do."""
    recorded = capture(lambda leaves: ([f(leaves[0])], None), [x])
    shapes = [tuple(recorded.outputs[0].shape)]
    with torch.no_grad():
        blocks = taken(lambda: accumulate(recorded.tape, shapes), device, times=2)
        return blocks, taken(lambda: dense_rows(recorded, [x], None), device, times=2)


def measured(device: str) -> dict[str, float]:
    """Return the figures by their names."""
    torch.set_default_dtype(torch.float64)
    few = torch.rand(4, device=device)
    many, other = torch.rand(2, NUMBERS, device=device).unbind()
    a, b = torch.rand(2, SIZE, SIZE, device=device).unbind()
    launch = taken(lambda: torch.sin(few), device, 200)
    leaf = few.clone().requires_grad_()
    node = torch.sin(leaf).grad_fn
    load = Load(attrgetter("_saved_self"), few.clone().requires_grad_())
    rows = few.expand(3, 4)
    enter = taken(lambda: torch.func.vmap(lambda x: x)(rows), device)
    end = chain(leaf)
    state = torch.rand(4 * BLOCKS, device=device)
    one, rows_of_one = walk(chain, state, device)

    def shifted(x: torch.Tensor) -> torch.Tensor:
        made = chain(x)
        return sum([made[k : k - BLOCKS or None] for k in range(BLOCKS + 1)])

    return {
        "LAUNCH": launch,
        "LOOK": taken(lambda: load(node), device, 200),
        "ENTER": enter,
        "MAPPED": (taken(lambda: torch.func.vmap(chain)(rows), device) - enter) / NODES,
        "NUMBER": (taken(lambda: many + other, device) - launch) / NUMBERS,
        "MULTIPLIED": (taken(lambda: a @ b, device) - launch) / SIZE**3,
        "ENGINE_NODE": taken(lambda: torch.autograd.grad(end, leaf, few, retain_graph=True), device) / NODES,
        "NODE": (one - rows_of_one) / NODES,
        "BLOCK": (walk(shifted, state, device)[0] - one) / (BLOCKS * NODES),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="where to measure")
    parser.add_argument("--write", action="store_true", help="write the figures into the code")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(given.device)
    print(f"torch {torch.__version__}, {given.device}, one thread, microseconds")
    print(f"{'figure':14}{'measured':>12}{'in the code':>14}")
    text = FILE.read_text()
    for name, value in found.items():
        print(f"{name:14}{value:12.3g}{getattr(price, name):14.3g}")
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value:.2g}", text, flags=re.MULTILINE)
        assert count == 1, name
    if given.write:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
