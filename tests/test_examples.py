"""The examples run as their users run them, and what they print is true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def brusselator(tmp_path_factory):
    """What the main example prints on small grids, and the plot it saves."""
    image = tmp_path_factory.mktemp("example") / "spy.png"
    command = [sys.executable, "examples/brusselator.py", "--sizes", "6", "9", "--out", str(image)]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout, image


def cells(output, name):
    """The integer columns of the row of a name: nonzeros, blocks, numbers stored."""
    line = next(line for line in output.splitlines() if line.startswith(name))
    words = line.removeprefix(name).replace(",", "").split()
    assert words[1] == "×"
    return [int(word) for word in words[3:6]]


@pytest.mark.parametrize("n", [6, 9])
def test_brusselator_table(brusselator, n):
    """Every unknown has its five-point stencil and its partner: 12 n² nonzeros, few numbers stored."""
    output, _ = brusselator
    nonzeros, blocks, stored = cells(output, f"Brusselator {n} × {n}")
    assert nonzeros == 12 * n**2
    assert blocks < 50
    assert stored <= 14 * 2 * n**2


def test_network_table(brusselator):
    """A batched network is one block of one 32 × 32 matrix for each of 64 rows."""
    output, _ = brusselator
    assert cells(output, "network, batch of 64") == [64 * 32 * 32, 1, 64 * 32 * 32]


def test_difference(brusselator):
    """The Jacobians printed are those of torch.func, to rounding (the Laplacian's entries are near 500)."""
    output, _ = brusselator
    line = next(line for line in output.splitlines() if line.startswith("largest difference"))
    differences = [
        float(word) for word in line.replace(":", " ").split() if word[0].isdigit() and "e" in word
    ]
    assert len(differences) == 2
    assert max(differences) < 1e-11


def test_newton(brusselator):
    """Newton's method converges to rounding, as it does only with the right Jacobian."""
    output, _ = brusselator
    line = next(line for line in output.splitlines() if line.startswith("Newton"))
    norms = [float(word) for word in line.split("residual")[1].split("→")]
    assert norms[-1] < 1e-9 * norms[0]


def test_plot(brusselator):
    """The plot is a PNG image."""
    _, image = brusselator
    assert image.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
