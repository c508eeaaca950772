"""Sparse answers come without PyTorch's own warnings."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "call",
    ["to_sparse(torch.sparse_csr)", "to_sparse(torch.sparse_csc)", "to_sparse(torch.sparse_coo)", "to_bsr()"],
)
def test_no_warning(call) -> None:
    """The first sparse answer of a process warns of nothing, whatever its layout."""
    program = (
        "import torch, torchjac\n"
        f"matrix = torchjac.jacobian(torch.sin)(torch.zeros(3)).{call}\n"
        "assert matrix.layout is not torch.strided and matrix.to_dense().equal(torch.eye(3))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
