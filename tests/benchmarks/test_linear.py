"""The sparse answer's memory and growth, in fresh processes."""

import json
import os
import subprocess
import sys
from operator import itemgetter
from pathlib import Path

import pytest
from benchmarks.linear import GOAL, PROBLEMS, STATUS

ROOT = Path(__file__).parents[2]


def measured(name, n):
    """A row of the table, from a process of its own."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "benchmarks/linear.py", "--one", name, str(n)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the peak of a process in /proc")
@pytest.mark.parametrize("name", PROBLEMS)
def test_memory_of_the_sparse_answer(name) -> None:
    """From the call of the function to the CSR tensor, at most six times its bytes are held.

    The system may give memory in pages of 2 MB, some more at one run than at another: the least of three counts.
    """
    row = min((measured(name, 300_000) for _ in range(3)), key=itemgetter("peak"))
    assert row["nnz"] > 2 * row["n"] - 3
    assert row["csr"] == 16 * row["nnz"] + 8 * (row["n"] + 1)
    assert row["peak"] <= GOAL * row["csr"]
    assert row["stored"] <= row["csr"]
