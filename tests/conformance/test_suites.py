"""The runner of other projects' tests sees what differs, and what does not."""

import re
import subprocess
import sys
from pathlib import Path

SUITE = """
import functorch, pytest, torch
from torch._functorch import eager_transforms
from torch.func import hessian, jacfwd, jacrev

x = torch.arange(3.0)

def test_same():
    assert jacrev(torch.sin)(x).shape == jacfwd(torch.sin)(x).shape == (3, 3)
    assert hessian(lambda x: x.sum())(x).shape == functorch.jacrev(torch.sin)(x).shape

def test_not_so():
    assert eager_transforms.jacrev is jacrev and "torchjac" not in jacrev.__module__

def test_words():
    with pytest.raises(RuntimeError, match="must be int or Tuple"):
        jacrev(torch.sin, 0.0)(x)

def test_refused():
    with pytest.raises(RuntimeError):
        jacrev(lambda x: (x.sin(), "aux"), has_aux=True)(x)

@pytest.mark.xfail
def test_wrong():
    assert jacrev(torch.sin)(x).sum() == 0

@pytest.mark.skip
def test_skipped(): ...
"""


def test_outcomes(tmp_path: Path) -> None:
    """Ours are called under all names; what differs is told with its kind, what fails both ways is not."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, str(Path(__file__).with_name("suites.py")), str(tmp_path), "test_suite.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    differing = re.findall(r"^test_suite.py::(\w+)\n +torch ", done.stdout, re.MULTILINE)
    assert differing == ["test_not_so", "test_refused", "test_words"]
    assert "6 tests, 4 passed, 1 xfailed, 1 skipped with torch's" in done.stdout
    assert re.search(r"calls of ours: .*'jacrev': 5", done.stdout)
    assert "3 outcomes differ: 1 only in the words of an error, 1 where one is asked for" in done.stdout
