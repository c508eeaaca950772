"""The table of sparse matrices, on small sizes: every row is measured, and values are those of the blocks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from examples import power_flow
from torch.func import grad

from benchmarks import assembly
from torchjac import hessian, jacobian, jacrev

ROOT = Path(__file__).parents[2]


def test_every_row() -> None:
    """Each row has a number beside the one that it is compared with, if its peer is installed."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "benchmarks/assembly.py", "--small"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert len(lines) in (12, 16)  # without and with the rows of memory, which only Linux tells
    assert all(float(line[60:].split()[0]) > 0 for line in lines)


def test_problems() -> None:
    """The matrices of the table are those of the loop over rows."""
    for f, x in (
        (grad(assembly.chain), assembly.random(7)),
        (assembly.reaction, assembly.random(2, 5)),
        (assembly.brusselator, assembly.random(2, 4, 4)),
        assembly.springs(3),
    ):
        dense = jacrev(f)(x).reshape(x.numel(), x.numel())
        torch.testing.assert_close(jacrev(f, layout=torch.sparse_csr)(x).to_dense(), dense)
        torch.testing.assert_close(jacobian(f)(x).to_dense().reshape(dense.shape), dense)


def test_casadi() -> None:
    """CasADi's functions of a grid have the same nonzeros and values."""
    pytest.importorskip("casadi")
    grid = power_flow.synthetic(30)
    x = power_flow.start(grid)[0] + 0.01 * assembly.random(72)
    multipliers = assembly.random(61)
    machine = assembly.casadi_power_flow(grid, x, multipliers)
    rules = lambda x: power_flow.balance(x, grid)
    lagrangian = lambda x: power_flow.cost(x, grid) + (rules(x) * multipliers).sum()
    for kind, ours in (
        ("Jacobian", jacrev(rules, layout=torch.sparse_csc)(x)),
        ("Hessian", hessian(lagrangian, layout=torch.sparse_csc, triangle="lower")(x)),
    ):
        values = torch.from_numpy(machine[kind]()[-1])
        torch.testing.assert_close(ours.values(), values)
