"""The examples at scale: their checks on small sizes always, at full size in a full sweep."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FULL = os.environ.get("TORCHJAC_SWEEP") == "full"


def run(name, *arguments):
    """What an example prints, run as its users run it.

    A shell starts it: Linux counts the memory of the process that starts another into the peak of that one.
    """
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, f"examples/{name}.py", *([] if FULL else arguments)]
    command = ["sh", "-c", '"$@"; exit $?', "sh", *program]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(output, words):
    """The numbers that follow some words, each time they are printed."""
    found = re.findall(re.escape(words) + r":? *(-?[\d,.]+(?:e[-+]\d+)?)", output)
    assert found, f"{words!r} is not in:\n{output}"
    return [float(number.rstrip(",.").replace(",", "")) for number in found]


def test_implicit_step() -> None:
    """Twelve entries a point; the residual falls by a constant factor; the small step is the dense one."""
    output = run("implicit_step", "--n", "24")
    assert " 12 entries a point, kind sparse" in output.replace("\n", " ")
    small = output.split("32 × 32")[1]
    residuals = numbers(small, "residual")
    assert all(after < before / 10 for before, after in pairwise(residuals))
    assert numbers(small, "difference from the dense step")[0] < 1e-9
    if FULL:
        assert "524,288 unknowns" in output
        assert numbers(output, "peak memory")[0] < 4  # GB


def test_bundle_adjustment() -> None:
    """Values of the row-by-row loop, the pattern of the theory, and steps down to the noise."""
    output = run("bundle_adjustment", "--observations", "1500")
    assert numbers(output, "difference from the row-by-row Jacobian")[0] < 1e-12
    assert "29 for each observation: True; columns as the theory has them: True" in output
    first, last = numbers(output, "residual")[0], numbers(output, "→")[-1]
    assert last < first / 50


def test_million_unknowns() -> None:
    """Newton reaches the minimum of the one and the root of the other."""
    output = run("million_unknowns", "--n", "1000")
    rosenbrock, broyden = numbers(output, "nnz=")
    n = 1_000_000 if FULL else 1000
    assert (rosenbrock, broyden) == (2 * n, 3 * n - 2)
    assert numbers(output, "distance from the minimum at ones")[0] < 1e-9
    assert numbers(output, "residual in the end")[1] < 1e-9


def test_per_sample() -> None:
    """The blocks are those of vmap(jacrev)."""
    output = run("per_sample", "--batch", "16")
    differences = numbers(output, "difference from vmap(jacrev)")
    assert len(differences) == 2
    assert max(differences) < 1e-12


def test_flow() -> None:
    """Each determinant is what its layers say, and the dense one where that is formed."""
    output = run("flow", "--n", "500")
    differences = numbers(output, "difference from the sum over layers")
    assert len(differences) == 3
    assert max(differences) < 1e-12
    if not FULL:
        assert max(numbers(output, "difference from the dense matrix")) < 1e-12


def test_graph_network() -> None:
    """An entry for each pair of features of neighbours, and the products and values of torch.func."""
    output = run("graph_network", "--nodes", "60")
    assert "16 entries for each edge and node: True" in output
    assert numbers(output, "J @ v from torch.func.jvp")[0] < 1e-12
    if not FULL:
        assert numbers(output, "difference from torch.func.jacrev")[0] < 1e-12


@pytest.mark.skipif(find_spec("zarr") is None, reason="zarr 3 needs Python 3.11")
def test_larger_than_memory(tmp_path) -> None:
    """The writer is killed twice and the store is whole; the flow of a shifted beginning is the shifted end."""
    output = run(
        "larger_than_memory", "--out", str(tmp_path / "picture.png"), "--n", "600", "--memory", "600 kB"
    )
    first, second = numbers(output, "killed, with")
    assert 20 <= first <= second < 100
    assert "checksums right" in output
    assert numbers(output, "J ∂u(0)/∂x against ∂u(T)/∂x")[0] < 1e-10
    assert numbers(output, "it becomes")[0] > 1


def test_pde_over_ranks() -> None:
    """Newton converges to rounding, as it does only with the right Jacobian: twelve entries a point."""
    output = run("pde_over_ranks", "--side", "16")
    residuals = numbers(output, "residual")
    assert residuals[-1] < 1e-9 * residuals[0]
    side = 128 if FULL else 16
    assert numbers(output, "J has")[0] == 12 * side**2


def test_ggn_over_data(tmp_path) -> None:
    """Every step lowers the loss; with its checkpoints the program gives the same again."""
    arguments = ("--samples", "600", "--steps", "2", "--checkpoint", str(tmp_path / "ggn.pt"))
    output = run("ggn_over_data", *arguments)
    losses = numbers(output, "loss")
    assert all(after < before for before, after in pairwise(losses))
    assert numbers(output, "peak memory of the process")[0] < 2  # GiB
    if not FULL:
        assert (tmp_path / "ggn.pt.step1").exists()
        assert numbers(run("ggn_over_data", *arguments), "loss") == losses
