"""JᵀJ of a bundle adjustment problem: `J.gram()` beside SciPy's sparse product.

    python benchmarks/gram.py                        20,000 observations
    python benchmarks/gram.py --observations 2000    fewer

All three ways begin with the Jacobian as an operator and take turns; the table has the median of nine turns each,
in processor time with one thread. SciPy's product alone is of a matrix that is there already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch

import torchjac


def turns(calls: dict[str, Callable[[], Any]], count: int = 9) -> dict[str, float]:
    """Median seconds of calls that take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            begin = process_time()
            call()
            times[name].append(process_time() - begin)
    return {name: median(record) for name, record in times.items()}


def main(argv: list[str] | None = None) -> int:
    """Check that both agree, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=20_000)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    from examples.bundle_adjustment import random_problem

    count = options.observations
    problem, x = random_problem(max(2, count // 400), max(3, count // 7), count)
    J = torchjac.jacobian(problem.residual)(x)
    matrix = J.to_scipy()
    weight = torch.linspace(1, 2, J.shape[:2].numel(), dtype=x.dtype).view(J.out_shape)
    ours, theirs = J.gram().to_scipy(), (matrix.T @ matrix).tocsr()
    if ours.nnz != theirs.nnz or abs(ours - theirs).max() > 1e-9 * abs(theirs).max():
        print("the two products differ")
        return 1
    times = turns({
        "J.gram()": lambda: J.gram(),
        "J.gram(weight)": lambda: J.gram(weight),
        "J.to_scipy(), then A.T @ A": lambda: (A := J.to_scipy()).T @ A,
        "A.T @ A alone": lambda: matrix.T @ matrix,
    })  # fmt: skip
    print(
        f"{count:,} observations, J of {matrix.nnz:,} nonzeros in {len(J.blocks)} blocks, JᵀJ of {ours.nnz:,}"
    )
    for name, seconds in times.items():
        print(f"{name:28}{seconds * 1e3:>10.1f} ms")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
