"""The table of stores on disk, in small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.store import STATUS

ROOT = Path(__file__).parents[2]
pytest.importorskip("zarr", minversion="3", reason="zarr 3 needs Python 3.11")


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells the peak of a process in /proc")
def test_table(tmp_path) -> None:
    """Each line is there; less is resident than the budget and what malloc keeps, and nothing is left on the disk."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    arguments = [
        "--gigabytes",
        "0.02",
        "--memory",
        "100 MB",
        "--rounds",
        "1",
        "--kills",
        "0",
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "benchmarks/store.py", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = [line[:16].strip() for line in done.stdout.splitlines()[1:]]
    assert names == ["answer", "raw, MB/s", "store, MB/s", "share of raw", "resident"]
    assert float(done.stdout.splitlines()[-1].split()[1]) <= 110
    assert list(tmp_path.iterdir()) == []
