"""The table of systems, on small sizes: every row solves what it says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_row() -> None:
    """Each row is measured, its solution right, and the way told that is taken."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "benchmarks/solve.py", "--small"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert len(lines) == 14
    ways = {line[:40].strip(): line.rsplit("  ", 1)[1] for line in lines}
    assert ways["tridiagonal"] == "banded"
    assert ways["arrow"] == "arrow"
    assert ways["bundle adjustment step"] == "arrow"
    assert ways["definite grid"] == "sparse L U"
