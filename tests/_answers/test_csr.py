"""Sparse answers come without PyTorch's own warnings."""

import subprocess
import sys

PROGRAM = """
import torch, torchjac
for layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
    matrix = torchjac.jacrev(torch.sin, layout=layout)(torch.zeros(3))
    assert matrix.layout is layout and matrix.to_dense().equal(torch.eye(3))
"""


def test_no_warning() -> None:
    """A first sparse answer of a process warns of nothing."""
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
