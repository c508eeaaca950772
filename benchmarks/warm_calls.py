"""What a call of a warm compiled program takes beside its arithmetic: the guards, and everything.

    python benchmarks/warm_calls.py             the table
    python benchmarks/warm_calls.py --backend inductor

The functions are small, so that the arithmetic is a µs or two. "guards" is the look at what the function reads;
"call" is all of a call. Microseconds of this thread, the median of many rounds: other load does not count.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SCALE, SHIFT = 2.0, 1.0


def cases() -> dict[str, Callable[[Any], Any]]:
    """Functions that read nothing, ten things, and the parameters of a network."""
    import torch

    settings = SimpleNamespace(a=1.0, b=2.0)
    table, parts = {"c": 3.0, "d": 4.0}, [5.0, 6.0]
    weight, bias = torch.rand(4), torch.rand(4)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4)).requires_grad_(
        False
    )

    def ten(x: Any) -> Any:
        scale = settings.a + settings.b + table["c"] + table["d"] + parts[0] + parts[1]
        return SCALE * scale * weight * x + SHIFT * bias

    return {"nothing": lambda x: x * x, "ten things": ten, "a network": net}


def microseconds(action: Callable[[], Any], rounds: int = 41, calls: int = 500) -> float:
    """The median over rounds of what one call takes of this thread."""
    for _ in range(calls):
        action()
    found = []
    for _ in range(rounds):
        begin = time.thread_time_ns()
        for _ in range(calls):
            action()
        found.append((time.thread_time_ns() - begin) / calls / 1000)
    return statistics.median(found)


def rows(backend: str) -> Iterator[str]:
    """The table, line by line."""
    import torch

    import torchjac

    yield f"torch {version('torch')}, {platform.machine()}, one thread, backend {backend}, µs of the thread"
    yield f"{'reads':16}{'guards':>8}{'code':>8}{'call':>8}"
    torch.set_num_threads(1)
    x = torch.rand(4)
    with torch.no_grad():
        for name, func in cases().items():
            jac = torchjac.compile(torchjac.jacrev(func), backend=backend)
            jac(x)
            ((program, guards),) = jac._programs.values()
            given = [x, *program.captured]
            times = microseconds(guards.hold), microseconds(lambda p=program, g=given: p.run(list(g)))
            yield f"{name:16}" + "".join(
                [f"{each:8.1f}" for each in (*times, microseconds(lambda j=jac: j(x)))]
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="inductor", help="what makes code of the programs")
    for line in rows(parser.parse_args().backend):
        print(line, flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    main()
