"""What the first call of a compiled Jacobian takes, beside that of torch.compile(torch.func.jacrev(f), fullgraph=True).

    python benchmarks/first_calls.py                      a recurrence, a convolution net, power flow, everyday calls
    python benchmarks/first_calls.py --only 'tanh|arm'    some of them
    python benchmarks/first_calls.py --sample 8           the first three, and eight everyday calls spread over all
    python benchmarks/first_calls.py --smallest           the first three, and everyday calls of the smallest sizes
    python benchmarks/first_calls.py --out FILE           the table into a file too; what stands there is not made again

Each first call is made in a process of its own, with a cache on the disk that knows nothing but an unlike program;
"again" is ours in another process, with the cache that the first one left. Seconds are those of the processor, of
children (the C++ compiler) too: other load does not count. Imports and the unlike program come before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def cases() -> dict[str, tuple[Callable[[], Any], int]]:
    """What makes each function and its input, and the order of the derivative; 0 is a sparse Hessian, ours alone."""
    import torch

    from benchmarks.everyday_functions import CALLS

    def recurrence() -> Any:
        def states(x: Any) -> Any:
            state, found = torch.zeros(()), []
            for k in range(60):
                state = torch.tanh(state + x[k])
                found.append(state)
            return torch.stack(found)

        return states, torch.randn(60)

    def convolutions() -> Any:
        layers = [torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 1, 3, padding=1)]
        return torch.nn.Sequential(*layers), torch.randn(1, 1, 64, 64)

    def power_flow() -> Any:
        from examples import power_flow as flow

        grid = flow.synthetic(10_000)
        x, prices = flow.start(grid)[0], torch.rand(2 * 10_000 + 1)
        return (lambda x: flow.cost(x, grid) + flow.balance(x, grid) @ prices), x

    return {
        "60 steps of a recurrence": (recurrence, 1),
        "convolutions 64x64": (convolutions, 1),
        "power flow, 10,000 buses": (power_flow, 0),
        **{call.name: (call.make, call.order) for call in CALLS},
    }


def first_call(name: str, way: str) -> float:
    """The seconds of the processor that a first call takes, in this process."""
    import torch

    import torchjac

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    make, order = cases()[name]
    func, x = make()

    def compiled(func: Callable[..., Any], order: int) -> Callable[..., Any]:
        if order == 0:
            if way == "torch":
                raise NotImplementedError("the dense Hessian has 10⁹ entries")
            return torchjac.compile(torchjac.hessian(func, layout=torch.sparse_csr, triangle="lower"))
        if way == "ours":
            return torchjac.compile((torchjac.jacrev, torchjac.hessian)[order - 1](func))
        return torch.compile((torch.func.jacrev, torch.func.hessian)[order - 1](func), fullgraph=True)

    with torch.no_grad():
        compiled(lambda x: x.cos() * x.sum(), 1)(torch.rand(7))
        taken = compiled(func, order)
        begin = sum(os.times()[:4])
        taken(x)
        return sum(os.times()[:4]) - begin


def in_process(name: str, way: str, cache: str) -> float | None:
    """`first_call` in another process; None where it fails."""
    command = [sys.executable, __file__, "--only", name, "--way", way]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def rows(names: list[str], known: dict[str, str]) -> Iterator[str]:
    """The table, line by line; known lines are taken over."""
    yield f"torch {version('torch')}, {platform.machine()}, one thread, seconds of the processor"
    yield f"{'':32}{'ours':>8}{'torch':>8}{'ratio':>8}{'again':>8}"
    for name in names:
        if name in known:
            yield known[name]
            continue
        with tempfile.TemporaryDirectory() as cache:
            ours, theirs = in_process(name, "ours", cache), in_process(name, "torch", cache)
            again = in_process(name, "ours", cache)
        ratio = ours / theirs if ours and theirs else None
        cells = ["-" if each is None else f"{each:.2f}" for each in (ours, theirs, ratio, again)]
        yield f"{name:32}" + "".join([f"{cell:>8}" for cell in cells])


def smallest(names: list[str]) -> list[str]:
    """Return of the names that differ in their sizes alone the first."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(re.sub(r" [\dx]+$", "", name), name)
    return list(found.values())


def main() -> None:
    """Print the table, or as a child one number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a regular expression for names")
    parser.add_argument("--sample", type=int, default=0, help="so many everyday calls, spread over all")
    parser.add_argument("--smallest", action="store_true", help="of each everyday function the smallest size")
    parser.add_argument("--out", type=Path, help="a file that the table goes into too")
    parser.add_argument("--way", choices=("ours", "torch"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(first_call(given.only, given.way)))
        return
    names = [name for name in cases() if re.search(given.only, name)]
    if given.smallest:
        names = smallest(names)
    if given.sample:
        names = [*names[:3], *names[3 :: max(1, (len(names) - 3) // given.sample)]]
    before = given.out.read_text().splitlines() if given.out and given.out.exists() else []
    known = {line[:32].rstrip(): line for line in before[2:]}
    lines = []
    for line in rows(names, known if before[:1] == [next(rows([], {}))] else {}):
        print(line, flush=True)
        lines.append(line)
        if given.out:
            given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    main()
