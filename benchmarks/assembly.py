"""Sparse matrices from blocks: how long they take beside the blocks alone, and how much memory.

    python benchmarks/assembly.py                    the table, with n = 1,000,000
    python benchmarks/assembly.py --small            small sizes, to see that it runs
    python benchmarks/assembly.py --large            with n = 10,000,000 too
    python benchmarks/assembly.py --only chain OPF   some rows

One thread, processor time, the medians of turns of calls that have been made before; memory is the peak of the
first call. "beside" is what the goal is a multiple of: the blocks (`jacobian`) and the writing of arrays as large as
those of the matrix; the blocks alone for a matrix that is filled again; the bytes of the matrix; for compiled programs
CasADi's virtual machine, where it is installed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor
from torch.nn.functional import pad

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples import power_flow

from benchmarks.memory import beyond_answer
from benchmarks.timing import alternate
from torchjac import compile, grad, hessian, jacobian, jacrev

#: Each call is measured for so long.
SECONDS = 0.5
DOUBLE, CSR = torch.float64, torch.sparse_csr


class Row(NamedTuple):
    """A line of the table: what was measured, what it is compared with, in milliseconds or MB, and the goal."""

    name: str
    ours: float
    beside: float
    goal: float


def milliseconds(*calls: Callable[[], Any]) -> list[float]:
    """The medians of the processor time of some calls, which take turns."""
    found = alternate({str(number): call for number, call in enumerate(calls)}, SECONDS, clock="cpu")
    return [1e3 * each[0] for each in found.values() if each is not None]


def chain(x: Tensor) -> Tensor:
    """Rosenbrock's function."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def reaction(u: Tensor) -> Tensor:
    """Two species on a line that diffuse and react."""
    a, b = u
    slope = u[:, 1:] - u[:, :-1]
    spread = pad(slope, (0, 1)) - pad(slope, (1, 0))
    return spread + torch.stack([a * a * b - 2 * a, a - a * a * b])


def brusselator(u: Tensor) -> Tensor:
    """Two species on a periodic square."""
    a, b = u
    spread = sum(u.roll(by, dim) for by in (1, -1) for dim in (1, 2)) - 4 * u
    return 0.1 * spread + torch.stack([1 + a * a * b - 4.4 * a, 3.4 * a - a * a * b])


def springs(side: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The forces of a mesh of springs, by tables of their ends."""
    number = torch.arange(side * side).view(side, side)
    ends = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[1:, 1:], number[:-1, :-1])]
    a, b = (torch.cat([pair[k].reshape(-1) for pair in ends]) for k in (0, 1))
    energy = lambda x: ((x[a] - x[b]).square().sum(-1) - 1).square().sum()  # noqa: E731
    flat = torch.stack(torch.meshgrid(*[torch.arange(side, dtype=DOUBLE)] * 2, indexing="ij"), -1).view(-1, 2)
    return grad(energy), 1.2 * flat


def assembly(name: str, f: Callable[[Tensor], Tensor], x: Tensor, goal: float) -> Iterator[Row]:
    """CSR at the first call, in memory, and later, in time; and values written into a matrix that is there."""
    sparse = jacrev(f, layout=CSR)
    used = beyond_answer(lambda: sparse(x))
    matrix = sparse(x)
    arrays = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    size = sum(array.nbytes for array in arrays)
    if used is not None:
        yield Row(f"{name}: peak memory of the first call, MB", (used[0] + size) / 1e6, size / 1e6, 4)
    blocks, into = jacobian(f), jacrev(f, layout=CSR, out=matrix)
    for _ in range(20 if x.numel() <= 10**6 else 3):
        blocks(x), into(x)
    write = lambda: [torch.empty_like(array).fill_(1) for array in arrays]  # noqa: E731
    bare, writing, whole, again = milliseconds(lambda: blocks(x), write, lambda: sparse(x), lambda: into(x))
    yield Row(f"{name}: CSR", whole, bare + writing, goal)
    yield Row(f"{name}: values into a matrix", again, bare, 1.2)


def optimal_power_flow(buses: int) -> Iterator[Row]:
    """The Jacobian of the constraints and the lower half of the Lagrangian's Hessian, eager and compiled."""
    grid = power_flow.synthetic(buses)
    x = power_flow.start(grid)[0]
    x = x + 0.01 * torch.rand(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    multipliers = torch.rand(2 * buses + 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    rules = lambda x: power_flow.balance(x, grid)  # noqa: E731
    lagrangian = lambda x: power_flow.cost(x, grid) + (rules(x) * multipliers).sum()  # noqa: E731
    virtual = casadi_power_flow(grid, x, multipliers)
    for kind, operator, sparse in (
        ("Jacobian", jacobian(rules), jacrev(rules, layout=CSR)),
        (
            "Hessian",
            hessian(lagrangian, layout="operator"),
            hessian(lagrangian, layout=CSR, triangle="lower"),
        ),
    ):
        for _ in range(20):
            operator(x), sparse(x)
        bare, whole = milliseconds(lambda f=operator: f(x), lambda f=sparse: f(x))
        yield Row(f"OPF of {buses:,} buses: {kind}", whole, bare, 1.5)
        fast = compile(sparse)
        fast(x)
        compiled, machine = milliseconds(lambda f=fast: f(x), virtual.get(kind, lambda: None))
        machine = machine if virtual else float("nan")
        yield Row(f"OPF of {buses:,} buses: {kind}, compiled", compiled, machine, 0.25)


def casadi_power_flow(grid: power_flow.Grid, x: Tensor, multipliers: Tensor) -> dict[str, Callable[[], Any]]:
    """The same two by CasADi's virtual machine, into buffers that are there; none where it is not installed."""
    try:
        import casadi
    except ImportError:
        return {}
    buses, count, branches = len(grid.load), len(grid.generator), grid.ends.shape[1]
    names, weights = casadi.SX.sym("x", len(x)), casadi.SX.sym("l", len(multipliers))
    ends = [0, buses, 2 * buses, 2 * buses + count, 2 * buses + 2 * count]
    angle, voltage, *power = (names[a:b] for a, b in pairwise(ends))
    number = lambda tensor: casadi.DM(tensor.numpy())  # noqa: E731

    def gathered(at: list[int]) -> Any:
        ones = casadi.DM.ones(len(at))
        return casadi.DM.triplet(at, list(range(len(at))), ones, buses, len(at))

    (begin, end), (r, z, charging, ratio) = grid.ends.tolist(), map(number, grid.branch)
    assert len(begin) == branches
    g, b = r / (r**2 + z**2), -z / (r**2 + z**2)
    va, vb, turn, inside = voltage[begin], voltage[end], angle[begin] - angle[end], b + charging / 2
    cos, sin, both = casadi.cos(turn), casadi.sin(turn), va * vb / ratio
    flows = [
        g * (va / ratio) ** 2 - both * (g * cos + b * sin),
        -inside * (va / ratio) ** 2 - both * (g * sin - b * cos),
        g * vb**2 - both * (g * cos - b * sin),
        -inside * vb**2 + both * (g * sin + b * cos),
    ]
    at_begin, at_end, at_generator = gathered(begin), gathered(end), gathered(grid.generator.tolist())
    rules = casadi.vertcat(*(
        number(grid.load[:, k]) - k * number(grid.shunt) * voltage**2
        + at_begin @ flows[k] + at_end @ flows[2 + k] - at_generator @ power[k] for k in (0, 1)
    ), angle[0])  # fmt: skip
    paid = 100 * power[0]
    cost = casadi.sum1(number(grid.cost[:, 0]) * paid**2 + number(grid.cost[:, 1]) * paid)
    hess = casadi.tril(casadi.hessian(cost + casadi.dot(rules, weights), names)[0])
    functions = {
        "Jacobian": (casadi.Function("J", [names], [casadi.jacobian(rules, names)]), (x,)),
        "Hessian": (casadi.Function("H", [names, weights], [hess]), (x, multipliers)),
    }
    return {kind: _into_buffers(function, given) for kind, (function, given) in functions.items()}


def _into_buffers(function: Any, given: tuple[Tensor, ...]) -> Callable[[], Any]:
    buffer, run = function.buffer()
    arrays = [numpy.ascontiguousarray(tensor.numpy()) for tensor in given]
    result = numpy.zeros(function.nnz_out(0))
    for k, array in enumerate(arrays):
        buffer.set_arg(k, memoryview(array))
    buffer.set_res(0, memoryview(result))

    def evaluate(kept: Any = (function, buffer, arrays, result)) -> Any:  # they must live as long as the call
        run()
        return kept

    return evaluate


def random(*shape: int) -> Tensor:
    """A point at random, the same each time."""
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def rows(small: bool, large: bool) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    """The lines of the table, measured where they are asked for."""
    for n in (1000,) if small else (10**6, 10**7) if large else (10**6,):
        side = int((n / 2) ** 0.5)
        yield "chain", lambda n=n: assembly(f"chain, n = {n:,}", grad(chain), random(n), 2)
        yield "reaction", lambda n=n: assembly(f"reaction, n = {n:,}", reaction, random(2, n // 2), 2)
        yield (
            "Brusselator",
            lambda s=side: assembly(f"Brusselator, n = {2 * s * s:,}", brusselator, random(2, s, s), 2),
        )
    side = 20 if small else 400
    yield "springs", lambda: assembly(f"springs, n = {2 * side * side:,}", *springs(side), 4)
    for buses in (30,) if small else (1354, 10_000):
        yield "OPF", lambda buses=buses: optimal_power_flow(buses)


def line(row: Row) -> str:
    """A line of the table."""
    ratio = row.ours / row.beside
    verdict = "no peer" if ratio != ratio else "met" if ratio <= row.goal else "missed"
    return f"{row.name:60}  {row.ours:>9.2f}  {row.beside:>9.2f}  {ratio:6.2f}  {row.goal:5.2f}  {verdict}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="small sizes")
    parser.add_argument("--large", action="store_true", help="ten million unknowns too")
    parser.add_argument("--only", nargs="+", default=[], help="words that the rows begin with")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse")
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, milliseconds")
    print(f"{'':60}  {'ours':>9}  {'beside':>9}  {'ratio':>6}  {'goal':>5}")
    for name, measure in rows(given.small, given.large):
        if not given.only or any(name.startswith(word) for word in given.only):
            for row in measure():
                print(line(row), flush=True)


if __name__ == "__main__":
    main()
